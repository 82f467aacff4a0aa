"""Packing a corpus into shards: the job, its parts, its state on the disk, and checks.

The format of shards belongs in `data.shards`, the corpora's own formats in `data.sources`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
