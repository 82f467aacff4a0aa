"""OpenMoji as a corpus: pictures, names, colours, questions, and the split by families of near-duplicates.

Other corpora are packed from their files in `data.sources`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
