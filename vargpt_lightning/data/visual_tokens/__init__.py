"""Visual tokens stored beside a corpus: their format, and the job that makes them.

The tokenizer itself belongs in `models.tokenizer`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
