"""Captions in tables: which columns hold captions and pictures, and rows made samples of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.base import Part, RowError
from vargpt_lightning.data.sources.caption_files import (
    CAPTION_KEYS,
    Sample,
    caption_texts,
    checked_captions,
    class_caption,
)
from vargpt_lightning.data.sources.parquet_rows import picture_bytes
from vargpt_lightning.data.sources.picture_store import PictureStore, open_pictures
from vargpt_lightning.data.sources.tables import Columns, table_parts, table_rows
from vargpt_lightning.utils.errors import UserError

PICTURE_NAMES = (
    *("image", "picture", "img", "photo", "jpg", "png", "file_name", "image_path", "image_file", "image_name"),
    *("img_path", "picture_path", "path", "file", "filename", "filepath", "file_path"),
)
ID_NAMES = ("id", "image_id", "uid", "key", "__key__")


def caption_parts(
    source: str,
    file: Path,
    options: Mapping[str, Any],
    pictures: Path | None = None,
    caption: str | None = None,
    picture: str | None = None,
) -> list[Part]:
    """Return pieces of a table of captions; the columns are found by their names, unless they are named.

    Pictures that are given by path lie below `pictures`, else beside the table. Raises UserError for a table without
    such columns.
    """
    parts = table_parts(source, file, options)
    if not parts:
        return []
    columns = Columns(file, parts)
    texts = caption_columns(file, columns, caption)
    shown = picture_column(file, columns, picture)
    settings = {
        "captions": texts,
        "picture": shown,
        "id": next(iter(named_columns(columns.names, ID_NAMES)), None),
        "classes": {name: columns.classes[name] for name in texts if name in columns.classes},
        "pictures": str(pictures or file.parent),
        "trusted": pictures is not None,
        # the folder's files are part of what is read
        "listed": pictures is None and shown not in columns.pictures,
    }
    if pictures is not None:
        open_pictures(pictures)  # archives are indexed here, once
    return [replace(part, options={**part.options, **settings}) for part in parts]


def caption_columns(file: Path, columns: Columns, named: str | None = None) -> list[str]:
    """Return the columns whose first text is the caption; raises UserError when there is none."""
    if named is not None:
        return [_there(file, columns, named, "caption")]
    if found := named_columns(columns.names, CAPTION_KEYS) or list(columns.classes)[:1]:
        return found
    raise _unknown(file, columns, "captions", "caption", CAPTION_KEYS)


def picture_column(file: Path, columns: Columns, named: str | None = None) -> str:
    """Return the column of pictures, or of their paths; raises UserError when there is none."""
    if named is not None:
        return _there(file, columns, named, "picture")
    preferred = (
        named_columns(columns.pictures, PICTURE_NAMES)
        or columns.pictures
        or named_columns(columns.names, PICTURE_NAMES)
    )
    if not preferred:
        raise _unknown(file, columns, "pictures", "picture", PICTURE_NAMES)
    return preferred[0]


def table_samples(part: Part) -> Iterator[Sample]:
    """Yield the rows of a piece of a table as samples."""
    told = part.options
    store = open_pictures(told["pictures"], archives=told["trusted"], links=told["trusted"])
    wanted = [name for name in (told["id"], told["picture"], *told["captions"]) if name is not None]
    for number, row in table_rows(part, wanted):
        if isinstance(row, RowError):
            yield Sample(str(number), row, row)
            continue
        data, path = _picture(row.get(told["picture"]), store)
        own = row.get(told["id"]) if told["id"] else None
        yield Sample(path or str(number), data, _captions(row, part), own if own is not None else path)


def picture_paths(parts: Sequence[Part]) -> set[str]:
    """Return the files that rows name as their pictures; none where rows hold their pictures themselves."""
    found: set[str] = set()
    for part in parts:
        for _, row in table_rows(part, [part.options["picture"]]):
            value = row.get(part.options["picture"]) if isinstance(row, Mapping) else None
            if isinstance(value, (bytes, Mapping, list)):
                return set()  # one row tells: nothing more is read
            if isinstance(value, str):
                found.add(str(Path(part.options["pictures"], value)))
    return found


def _picture(value: Any, store: PictureStore) -> tuple[bytes | RowError, str]:
    """A cell's picture, or what is wrong with it, and its path if it is had by that."""
    if isinstance(value, (list, tuple)):
        filled = [each for each in value if _filled(each)]
        if len(filled) > 1:
            return RowError(f"{len(filled)} pictures in a row; expected one with its caption"), ""
        value = filled[0] if filled else None
    if isinstance(value, str):
        value = {"path": value}
    data, path = picture_bytes(value)
    if data is not None:
        return data, ""
    if not path:
        return RowError("no picture; expected its bytes or its path"), ""
    if "://" in path:
        return RowError(f"picture {path[:200]!r}: an address; expected a file, nothing is downloaded"), ""
    try:
        return store.read(path), path
    except RowError as error:
        return error, path


def _filled(value: Any) -> bool:
    return bool(value) and (not isinstance(value, Mapping) or bool(value.get("bytes") or value.get("path")))


def _captions(row: Mapping[str, Any], part: Part) -> list[str] | RowError:
    try:
        for name in part.options["captions"]:
            value = row.get(name)
            classes = part.options["classes"].get(name)
            if classes is not None and isinstance(value, int):
                if not 0 <= value < len(classes):
                    raise RowError(f"the caption's class {name} is {value}; expected 0 to {len(classes) - 1}")
                return [class_caption(classes[value])]
            if texts := [text for text in caption_texts(value) if text.strip()]:
                return checked_captions(texts)
    except RowError as error:
        return error
    return RowError(f"no caption; expected text in {' or '.join(part.options['captions'])}")


def named_columns(there: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of the names that are wanted, in the order in which they are, in any case."""
    return [name for want in wanted for name in there if name.lower() == want]


def _there(file: Path, columns: Columns, name: str, option: str) -> str:
    if name not in columns.names:
        raise UserError(f"{file}: no column {name!r}, which {option}= names; there are {', '.join(columns.names)}")
    return name


def _unknown(file: Path, columns: Columns, what: str, option: str, names: Sequence[str]) -> UserError:
    there = ", ".join(columns.names) or "none"
    return UserError(
        f"{file}: no column of {what} among {there[:300]}; expected one of {', '.join(names)}, or {option}=COLUMN"
    )
