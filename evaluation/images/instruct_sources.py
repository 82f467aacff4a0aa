"""Where the instruction set comes from: folders of classes, parquet files with labels, packed data of this project.

Reference pictures are cropped to the middle square and resized once (Lanczos, antialiased), and stored as PNG beside
the prompt file; `size=None` keeps their own. Memory stays flat: pictures are read one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vargpt_lightning.data.sources.endings import is_picture
from vargpt_lightning.evaluation.base.files import file_stem, save_picture
from vargpt_lightning.evaluation.images.instruct_set import (
    PER_CLASS,
    ImageClass,
    Prompt,
    class_prompt,
    said,
    stable_choice,
)
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.data.shards.dataset import ShardDataset
    from vargpt_lightning.data.shards.records import Record

_CAPTION_KEYS = ("caption", "name", "class")
_CLASS_KEYS = ("class", "category")


def keep_reference(folder: Path, id_: str, data: bytes, size: int | None) -> Path:
    """Writes a reference picture as PNG, the middle square at `size` pixels; raises UserError when it does not decode.

    One that is there already is not written again: its name holds a hash of what it was made from.
    """
    from vargpt_lightning.data.images.pictures import decode_picture

    path = folder / f"{file_stem(id_)}-{hashlib.sha256(data).hexdigest()[:8]}.png"
    if not path.is_file():
        save_picture(path, middle_square(decode_picture(data, id_), size))
    return path


def middle_square(picture: Image.Image, size: int | None) -> Image.Image:
    """The largest square in the middle, at size x size; the picture itself for None."""
    if size is None:
        return picture
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    # cropped first: a resize of a box would look at the pixels around it
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def folder_prompts(
    root: Path,
    references: Path,
    classes: Sequence[ImageClass] = (),
    per_class: int = PER_CLASS,
    size: int | None = 256,
    allow_fewer: bool = False,
) -> Iterator[Prompt]:
    """Requests from a folder with one folder a class, `per_class` pictures of each chosen by a hash of their names.

    Args:
        references: where the prepared pictures go.
        classes: names of the classes by folder; a folder's own name without one.

    Raises:
        UserError: no folders of pictures, a class with fewer pictures unless allowed, a picture that does not decode.
    """
    names = {class_.key: class_ for class_ in classes}
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    if not folders:
        raise UserError(f"{root}: no folders; expected one a class, with its pictures inside")
    for folder in folders:
        files = [path for path in folder.rglob("*") if is_picture(path.name) and not path.name.startswith(".")]
        within = [path.relative_to(folder).as_posix() for path in files]
        _enough(f"{folder}", len(files), per_class, allow_fewer)
        class_ = names.get(folder.name, ImageClass(folder.name, said(folder.name)))
        for number, place in enumerate(stable_choice(within, per_class)):
            prompt = class_prompt(class_, number)
            yield class_prompt(class_, number, keep_reference(references, prompt.id, files[place].read_bytes(), size))


def parquet_prompts(
    root: Path,
    references: Path,
    classes: Sequence[ImageClass] = (),
    per_class: int = PER_CLASS,
    size: int | None = 256,
    allow_fewer: bool = False,
) -> Iterator[Prompt]:
    """Requests from parquet files with columns `image` (a struct with bytes) and `label` (a number).

    Labels are read first, alone; then only row groups with chosen rows. Class names come from the argument, else from
    the file's own metadata. Raises UserError as `folder_prompts`, and for missing columns.
    """
    import pyarrow.parquet as pq

    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    if not files or not files[0].is_file():
        raise UserError(f"{root}: no parquet files; expected columns image and label")
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    named: list[str] = []
    for number, file in enumerate(files):
        with pq.ParquetFile(file) as table:
            missing = {"image", "label"} - set(table.schema_arrow.names)
            if missing:
                there = ", ".join(table.schema_arrow.names)
                raise UserError(f"{file}: no column {' and '.join(sorted(missing))}; there are {there}")
            named = named or _label_names(table.schema_arrow.metadata)
            row = 0
            for batch in table.iter_batches(columns=["label"]):
                for label in batch.column(0).to_pylist():
                    if isinstance(label, int) and label >= 0:
                        found[label].append((number, row))
                    row += 1
    chosen: dict[tuple[int, int], tuple[ImageClass, int]] = {}
    for label, rows in sorted(found.items()):
        class_ = _labelled(label, classes, named)
        _enough(f"{root}, class {class_.name!r}", len(rows), per_class, allow_fewer)
        names = [f"{files[file].name}:{row}" for file, row in rows]
        for number, place in enumerate(stable_choice(names, per_class)):
            chosen[rows[place]] = class_, number
    prompts = list(_keep_rows(files, chosen, references, size))
    yield from sorted(prompts, key=lambda prompt: prompt.id)


def _keep_rows(
    files: Sequence[Path],
    chosen: dict[tuple[int, int], tuple[ImageClass, int]],
    references: Path,
    size: int | None,
) -> Iterator[Prompt]:
    import pyarrow.parquet as pq

    for number, file in enumerate(files):
        with pq.ParquetFile(file) as table:
            start = 0
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                wanted = [row for row in range(start, start + count) if (number, row) in chosen]
                if wanted:
                    images = table.read_row_group(group, columns=["image"]).column(0)
                    for row in wanted:
                        class_, place = chosen[number, row]
                        prompt = class_prompt(class_, place)
                        data = _bytes(images[row - start].as_py(), f"{file}, row {row}")
                        yield class_prompt(class_, place, keep_reference(references, prompt.id, data, size))
                start += count


def packed_prompts(
    root: Path, references: Path, size: int | None = None, limit: int | None = None, split: str | None = None
) -> Iterator[Prompt]:
    """Requests from packed data: every record that has a drawn picture, in the order of the shards.

    The instruction is the user's text, the caption the record's `caption`, `name` or `class`, the reference its first
    drawn picture. `root` is a packed folder, or one above several. Of at most `limit` requests each is the first that
    draws in its part of the records, all parts alike in length. Raises UserError when no record draws.
    """
    from vargpt_lightning.data.shards.dataset import ShardDataset
    from vargpt_lightning.data.shards.format import INDEX_NAME
    from vargpt_lightning.data.shards.records import DRAWN

    folders = [root] if (root / INDEX_NAME).is_file() else sorted(path.parent for path in root.rglob(INDEX_NAME))
    if not folders:
        raise UserError(f"{root}: no {INDEX_NAME} there or below; expected a folder of packed records")
    data = [each for each in map(ShardDataset, folders) if each.draws and split in (None, each.split)]
    total, seen = sum(map(len, data)), set[str]()
    parts = [range(total)]
    if limit is not None and limit < total:
        parts = [range(part * total // limit, (part + 1) * total // limit) for part in range(limit)]
    for part in parts:
        for record in (_at(data, place) for place in part):
            drawn = record.pictures(DRAWN)
            asked = " ".join(turn.text.strip() for turn in record.turns if turn.role == "user").strip()
            if not drawn or not asked:
                continue
            # two sources may count their records alike
            id_ = record.id
            while id_ in seen:
                id_ = f"{record.source}/{id_}"
            seen.add(id_)
            picture = keep_reference(references, drawn[0].name, drawn[0].data or b"", size)
            yield Prompt(id_, asked, _meta(record.meta, _CAPTION_KEYS), _meta(record.meta, _CLASS_KEYS), picture)
            if limit is not None and limit < total:
                break
    if not seen:
        raise UserError(f"{root}: no record of {len(folders)} packed folders asks for a drawing; expected some")


def _at(data: Sequence[ShardDataset], place: int) -> Record:
    """A record of several data sets, one after the other."""
    for each in data:
        if place < len(each):
            return each[place]
        place -= len(each)
    raise IndexError(place)


def _meta(meta: dict[str, Any], keys: Sequence[str]) -> str:
    return next((str(meta[key]) for key in keys if meta.get(key)), "")


def _enough(where: str, count: int, wanted: int, allow_fewer: bool) -> None:
    if count < wanted and not allow_fewer:
        raise UserError(f"{where}: {count} pictures, {wanted} are asked for; take fewer a class, or allow fewer")


def _label_names(metadata: dict[bytes, bytes] | None) -> list[str]:
    """Class names as the datasets library leaves them in a parquet file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, ValueError, TypeError):
        return []


def _labelled(label: int, classes: Sequence[ImageClass], named: Sequence[str]) -> ImageClass:
    if classes:
        if label >= len(classes):
            raise UserError(f"label {label}: the class list has {len(classes)}; expected a name for every label")
        return classes[label]
    return ImageClass(f"{label:04d}", said(named[label]) if label < len(named) else str(label))


def _bytes(image: Any, where: str) -> bytes:
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise UserError(f"{where}: image has no bytes; expected an encoded picture")
    return data
