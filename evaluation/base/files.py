"""Pictures of an evaluation as files: safe names, fingerprints, strips; written in one step each. Imports no torch."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.evaluation.base.protocols import RealPicture
from vargpt_lightning.utils.files import read_jsonl, write_bytes, write_jsonl


def rgb(picture: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent becomes white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    return picture.convert("RGB")


def digest(picture: Image.Image) -> str:
    """A fingerprint of the pixels and the size."""
    picture = rgb(picture)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


def short_hash(*values: Any) -> str:
    """A fingerprint of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_stem(id_: str) -> str:
    """A file name for any id: its plain characters, and a few digits of a hash where others had to go."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", id_).strip(".-")[:80]
    return plain if plain == id_ else f"{plain}-{short_hash(id_)[:8]}".lstrip("-")


def save_picture(path: Path, picture: Image.Image) -> None:
    """Writes a PNG in one step: a file that is there is whole."""
    content = io.BytesIO()
    rgb(picture).save(content, "PNG")
    write_bytes(path, content.getvalue())


def open_picture(folder: Path, row: Mapping[str, Any]) -> Image.Image:
    """The first picture that a row names, relative to the evaluation's folder."""
    with Image.open(folder / row["files"][0]) as picture:
        return picture.convert("RGB")


def is_whole(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether every file that a row names is there."""
    return all((folder / name).is_file() for name in (*row.get("files", ()), *row.get("scales", ())))


def keep_pictures(folder: Path, pictures: Sequence[RealPicture], digests: Mapping[str, str]) -> None:
    """Writes the real pictures and their table; pictures that are there already are not written again.

    Files beside them that the table does not name, of pictures that are not asked about any more, are removed.
    """
    table = folder / "pictures.jsonl"
    known = {row.get("id"): row for row in read_jsonl(table)}
    rows = []
    for picture in pictures:
        row: dict[str, Any] = {
            "id": picture.key,
            "hash": digests[picture.key],
            "files": [f"real/{file_stem(picture.key)}.png"],
        }
        row |= {key: getattr(picture, key) for key in ("name", "split", "category", "subcategory")}
        row |= {"scene": picture.scene} if picture.scene else {}
        if known.get(picture.key, {}).get("hash") != row["hash"] or not is_whole(folder, row):
            save_picture(folder / row["files"][0], picture.image)
        rows.append(row)
    write_jsonl(table, rows)
    named = {row["files"][0] for row in rows}
    for file in (folder / "real").glob("*.png"):
        if f"real/{file.name}" not in named:
            file.unlink()


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in a row without gaps; `cut_strip` takes them apart again."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        strip.paste(rgb(picture), (place * width, 0))
    return strip


def cut_strip(strip: Image.Image, count: int) -> list[Image.Image]:
    """The pictures of a strip made by `side_by_side`."""
    width = strip.width // count
    return [strip.crop((place * width, 0, (place + 1) * width, strip.height)) for place in range(count)]
