"""StyleBooth's pairs: a plain picture, and the same in a style (arXiv 2404.12154).

`train.csv` has the columns EnStyle, Target:FILE and Source:FILE, among others: a style's name, and paths below its
folder. What stands behind them in a row, which holds commas of its own, is not looked at.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.sources.base import (
    ROWS_PER_PART,
    Part,
    Rejected,
    Row,
    RowError,
    check_text,
    need,
    read_all,
    row_id,
    with_pictures,
)
from vargpt_lightning.data.sources.phrases import ASK_FOR_STYLE, edited, pick
from vargpt_lightning.data.sources.picture_store import PictureStore
from vargpt_lightning.utils.errors import UserError

NAME = "stylebooth"
TABLE = "train.csv"
STYLE, TARGET, SOURCE = "EnStyle", "Target:FILE", "Source:FILE"


def parts(path: Path, *, pictures: Path | None = None, reverse: bool = False, seed: int = 0) -> list[Part]:
    """Return pieces of a table, for `read_part`.

    Args:
        path: the unpacked folder with `train.csv`, or a table like it.
        pictures: where paths begin; beside the table by default.
        reverse: also make each pair a request to take the style away again.
        seed: of the wording.

    Raises:
        UserError: there is no such table.
    """
    path = need(Path(path), f"StyleBooth's folder with {TABLE}")
    table = path / TABLE if path.is_dir() else path
    need(table, f"StyleBooth's {TABLE}")
    columns, rows = _rows(table)
    if missing := [name for name in (STYLE, TARGET, SOURCE) if name not in columns]:
        raise UserError(f"{table}: no column {', '.join(missing)}; expected it beside {', '.join(columns)[:200]}")
    options = {"pictures": str(pictures or table.parent), "reverse": reverse, "seed": seed}
    starts = range(0, len(rows), ROWS_PER_PART)
    return [Part(NAME, table, at, min(at + ROWS_PER_PART, len(rows)), at, options) for at in starts]


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    columns, rows = _rows(part.path)
    places = [columns.index(name) for name in (STYLE, TARGET, SOURCE)]
    store, seed = PictureStore(Path(part.options["pictures"]), archives=False), part.options["seed"]
    for number, cells in enumerate(rows[part.start : part.stop], part.first):
        name = row_id(None, number)
        try:
            if len(cells) <= max(places):
                raise RowError(f"{len(cells)} cells; expected {', '.join((STYLE, TARGET, SOURCE))} among them")
            style, target, source = (cells[place].strip() for place in places)
            check_text(style, STYLE)
            if not (style and target and source):
                raise RowError(
                    f"{STYLE} {style!r}, {TARGET} {target!r}, {SOURCE} {source!r}; expected none to be empty"
                )
        except RowError as error:
            yield Rejected(name, NAME, str(error))
            continue
        asked = pick(ASK_FOR_STYLE, seed, name, "ask").format(style=style)
        yield _pair(name, asked, source, target, store, seed)
        if part.options["reverse"]:
            yield _pair(f"{name}-plain", f"Take the style of {style} away.", target, source, store, seed)


def read(path: Path, *, pictures: Path | None = None, reverse: bool = False, seed: int = 0) -> Iterator[Row]:
    """Read all rows; see `parts`."""
    return read_all(parts(path, pictures=pictures, reverse=reverse, seed=seed), read_part)


def _rows(table: Path) -> tuple[list[str], list[list[str]]]:
    """The names in the first line and the cells of all others; cells at the end of a row may be broken up anyhow."""
    try:
        lines = table.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{table}: cannot be read ({error.strerror or error})") from error
    first, *rest = lines or [""]
    cells = [next(csv.reader([line])) for line in rest if line.strip()]
    return [name.strip() for name in first.split(",")], cells


def _pair(name: str, asked: str, before: str, after: str, store: PictureStore, seed: int) -> Row:
    turns = edited(asked, (before, None), (after, None), seed, name)
    return with_pictures(Record(name, NAME, turns, {"kind": "edit"}), store.read)
