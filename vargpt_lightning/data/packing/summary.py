"""What was packed, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vargpt_lightning.data.shards.format import REJECTED_NAME
from vargpt_lightning.utils.counted import counted

MEGABYTE = 2**20


def summary(index: dict[str, Any], out: Path) -> str:
    """Return what an index says was packed into a folder."""
    size = f"{index['bytes'] / MEGABYTE:,.1f} MB in {counted(len(index['shards']), 'shard')}"
    lines = [f"{out}: {counted(index['count'], 'record')}, {size}"]
    for name, counts in index["sources"].items():
        pictures = f"{counts['seen']:,} seen and {counted(counts['drawn'], 'drawn picture')}"
        rejected = counted(counts["rejected"], "row")
        lines.append(f"  {name}: {counted(counts['count'], 'record')}, {pictures}, {rejected} rejected")
    if index["renamed"]:
        lines.append(f"  {counted(index['renamed'], 'id')} occurred before, and got a number")
    lines += [f"  {count:,} rejected for {reason}" for reason, count in index.get("reasons", {}).items()]
    if index["rejected"]:
        lines.append(f"  why each row was rejected: {out / REJECTED_NAME}")
    for name, counts in index.get("left_out", {}).items():
        if counts:
            told = ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items()))
            lines.append(f"  {name}: {counted(sum(counts.values()), 'file')} not used: {told}")
    return "\n".join(lines)
