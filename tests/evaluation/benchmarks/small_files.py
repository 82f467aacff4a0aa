"""Small files of the true formats: pictures, parquet files as the public mirrors have them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image


def png(colour: str = "red", size: tuple[int, int] = (4, 3)) -> bytes:
    """An encoded picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return content.getvalue()


def write_picture(path: Path, colour: str = "red") -> Path:
    """A picture's file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(colour))
    return path


def write_mirror(path: Path, rows: list[dict[str, Any]], row_group_size: int = 2) -> Path:
    """A parquet file of these rows; pictures are `{"bytes", "path"}` structs, as the mirrors have them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def cell(colour: str = "red") -> dict[str, Any]:
    """A picture's cell."""
    return {"bytes": png(colour), "path": None}
