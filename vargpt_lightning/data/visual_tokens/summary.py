"""What visual tokens a folder has, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vargpt_lightning.utils.counted import counted

MEGABYTE = 2**20


def summary(folder: Path, made: Any) -> str:
    """Return what there is now in a few lines."""
    counts, size = made.index["counts"], sum(file.stat().st_size for file in made.folder.iterdir() if file.is_file())
    lines = [
        f"{folder}: {counted(counts['pictures'], 'drawn picture')} in {counted(made.variants, 'variant')}, "
        f"{counted(counts['rows'], 'map')} of {counted(made.index['tokens'], 'token')}, {size / MEGABYTE:,.1f} MB in "
        f"{made.folder}"
    ]
    if counts["bad"]:
        lines.append(f"  {counted(counts['bad'], 'picture')} could not be decoded: {made.folder / 'bad.jsonl'}")
    return "\n".join(lines)
