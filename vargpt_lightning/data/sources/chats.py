"""Rows of chat files made into records: what LLaVA's, VARGPT's and other sharegpt-style files have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vargpt_lightning.data.sources.base import Part, Rejected, Row, RowError, conversation, put_placeholder, row_id
from vargpt_lightning.data.sources.json_rows import json_parts, json_rows
from vargpt_lightning.data.sources.picture_store import By, PictureStore, open_pictures

FROM_VALUE, ROLE_CONTENT = ("from", "value"), ("role", "content")
KeyOf = Callable[[Part, str], str]


def chat_parts(
    source: str, path: Path, pictures: Path | None, options: Mapping[str, Any], by: By = "path", prefer: str = ""
) -> list[Part]:
    """Return pieces of chat files; pictures are files beside them unless `pictures` says where.

    Archives of pictures are indexed here, once, before any process needs them.
    """
    root = Path(pictures) if pictures is not None else path if path.is_dir() else path.parent
    settings = {**options, "pictures": str(root), "archives": pictures is not None}
    parts = json_parts(source, path, settings, prefer=prefer)
    open_pictures(root, by, settings["archives"])
    return parts


def chat_rows(part: Part, key_of: KeyOf, by: By = "path") -> Iterator[Row]:
    """Read a piece of chat files; `key_of` gives the key that a picture goes by."""
    store = open_pictures(part.options["pictures"], by, part.options["archives"])
    for number, row in json_rows(part):
        place = f"{part.options.get('label', '')}{number}"
        if isinstance(row, RowError):
            yield Rejected(place, part.source, str(row))
        elif not isinstance(row, Mapping):
            yield Rejected(place, part.source, f"a row is {type(row).__name__}; expected an object")
        else:
            yield chat_row(part, row, row_id(row.get("id"), place), store, key_of)


def chat_row(part: Part, row: Mapping[str, Any], name: str, store: PictureStore, key_of: KeyOf) -> Row:
    """Make one row a record, whichever of the two ways its turns are written in."""
    turns, keys = turns_of(row)
    try:
        paths = picture_paths(row)
        answers = answers_of(row, keys)
    except RowError as error:
        return Rejected(name, part.source, str(error))
    if part.options.get("add_placeholder") and paths:
        turns = put_placeholder(turns, len(paths), keys)
    by_key = {key_of(part, path): path for path in paths}
    meta = {"row_id": str(row["id"])} if isinstance(row.get("id"), (str, int)) else {}
    chosen, rejected = answers or (None, None)
    return conversation(
        name,
        part.source,
        [*turns, chosen] if chosen and isinstance(turns, list) else turns,
        [key_of(part, path) for path in paths],
        lambda key: store.read(by_key[key]),
        keys=keys,
        meta=meta,
        rejected=rejected,
    )


def answers_of(row: Mapping[str, Any], keys: tuple[str, str]) -> tuple[dict[str, str], dict[str, str]] | None:
    """Return a row's `chosen` and `rejected` answers as turns, None where it is no pair.

    Each is a turn, a list of one turn, or its text, as LLaMA-Factory's and VARGPT-v1.1's files have them.
    Raises RowError where there is one without the other, or one that cannot be read.
    """
    given = {name: row[name] for name in ("chosen", "rejected") if not _is_empty(row.get(name))}
    if not given:
        return None
    if len(given) == 1:
        (there,) = given
        lacking = "rejected" if there == "chosen" else "chosen"
        raise RowError(f"{there} without {lacking}; expected a pair, both or neither")
    return _answer(given["chosen"], "chosen", keys), _answer(given["rejected"], "rejected", keys)


def _answer(value: Any, name: str, keys: tuple[str, str]) -> dict[str, str]:
    turn = value[0] if isinstance(value, list) and len(value) == 1 else value
    text = turn
    if isinstance(turn, Mapping):
        text = next((turn[key] for key in (FROM_VALUE[1], ROLE_CONTENT[1]) if turn.get(key) is not None), None)
    if not isinstance(text, str):
        raise RowError(f"{name} is {str(value)[:80]!r}; expected an answer: one turn, or its text")
    return {keys[0]: "assistant", keys[1]: text}


def turns_of(row: Mapping[str, Any]) -> tuple[Any, tuple[str, str]]:
    """Return a row's turns, its system text before them, and what their speakers and texts are called.

    They are a list under `conversations` or `messages`, the same as JSON text, or one list for each key, as `datasets`
    keeps them; anything else is returned as it is.
    """
    turns = row.get("conversations") if row.get("conversations") is not None else row.get("messages")
    if isinstance(turns, str) and turns.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            turns = json.loads(turns, strict=False)
    if isinstance(turns, Mapping) and turns and all(isinstance(value, list) for value in turns.values()):
        count = max(map(len, turns.values()))
        turns = [{key: value[n] for key, value in turns.items() if n < len(value)} for n in range(count)]
    first = turns[0] if isinstance(turns, list) and turns else None
    keys = ROLE_CONTENT if isinstance(first, Mapping) and first.get("role") is not None else FROM_VALUE
    system = row.get("system")
    if isinstance(turns, list) and isinstance(system, str) and system.strip():
        turns = [{keys[0]: "system", keys[1]: system}, *turns]
    return turns, keys


def picture_cells(row: Mapping[str, Any]) -> list[Any]:
    """Return what a row has under `images`, else under `image`; cells that hold nothing are no pictures."""
    for name in ("images", "image"):
        value = row.get(name)
        cells = value if isinstance(value, list) else [value]
        if filled := [cell for cell in cells if not _is_empty(cell)]:
            return filled
    return []


def _is_empty(cell: Any) -> bool:
    return cell is None or cell in ("", b"") or (isinstance(cell, Mapping) and all(map(_is_empty, cell.values())))


def picture_paths(row: Mapping[str, Any]) -> list[str]:
    """Return the paths in a row's `images` or `image`; raises RowError when they are no texts."""
    cells = picture_cells(row)
    paths = [cell.get("path") if isinstance(cell, Mapping) else cell for cell in cells]
    if any(not isinstance(path, str) or not path for path in paths):
        raise RowError(f"pictures are {str(cells)[:80]!r}; expected a path or a list of paths")
    return [str(path) for path in paths]
