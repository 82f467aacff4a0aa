"""InstructPix2Pix's pairs: a picture, an instruction, and the picture changed as it says (arXiv 2211.09800).

Two layouts: the authors' folder, with `seeds.json`, a list of [folder, [seed, ...]], and in each folder `prompt.json`
(the instruction under `edit`), SEED_0.jpg before and SEED_1.jpg after; and parquet of the hub, with the columns
`original_image` (or `input_image`), `edit_prompt` and `edited_image`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
from vargpt_lightning.data.sources.caption_files import inside
from vargpt_lightning.data.sources.parquet_rows import (
    find_parquet,
    open_parquet,
    parquet_parts,
    parquet_rows,
    picture_bytes,
)
from vargpt_lightning.data.sources.phrases import edited
from vargpt_lightning.utils.errors import UserError

NAME = "instruct_pix2pix"
SEEDS = "seeds.json"
_BEFORE, _ASKED, _AFTER = ("original_image", "input_image"), "edit_prompt", "edited_image"
_EXPECTED = f"a folder with {SEEDS}, or parquet with {_BEFORE[0]}, {_ASKED} and {_AFTER}"


def parts(path: Path, *, pictures: Path | None = None, pairs: int | None = None, seed: int = 0) -> list[Part]:
    """Return pieces of the authors' folder or of parquet files, for `read_part`.

    Args:
        path: the folder, or a parquet file or a folder of them.
        pictures: not used here, pictures lie beside their instruction.
        pairs: of the folder, at most so many pairs of each instruction, the first ones; None takes all.
        seed: of the wording of answers.

    Raises:
        UserError: it is neither, or broken.
    """
    path = need(Path(path), _EXPECTED)
    if pairs is not None and pairs < 1:
        raise UserError(f"{NAME} pairs={pairs}; expected 1 or more")
    options = {"pairs": pairs, "seed": seed}
    if (path / SEEDS).is_file():
        count = len(_seeds(path))
        starts = range(0, count, ROWS_PER_PART)
        return [Part(NAME, path, at, min(at + ROWS_PER_PART, count), at, options) for at in starts]
    files = find_parquet(path)
    if not files:
        raise UserError(f"{path}: expected {_EXPECTED}")
    found = []
    for file in files:
        with open_parquet(file, (_ASKED, _AFTER)) as opened:
            names = opened.schema_arrow.names
        if not set(_BEFORE) & set(names):
            raise UserError(f"{file}: no column {_BEFORE[0]}; expected it beside {', '.join(names)}")
        found += parquet_parts(NAME, file, options, (_ASKED, _AFTER))
    return found


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    if part.path.is_dir():
        yield from _folder_rows(part)
        return
    for number, row in parquet_rows(part, (*_BEFORE, _ASKED, _AFTER)):
        name = f"{part.path.stem}-{number}"
        yield Rejected(name, NAME, str(row)) if isinstance(row, RowError) else _table_row(row, name, part)


def read(path: Path, *, pictures: Path | None = None, pairs: int | None = None, seed: int = 0) -> Iterator[Row]:
    """Read all rows; see `parts`."""
    return read_all(parts(path, pairs=pairs, seed=seed), read_part)


def _seeds(folder: Path) -> list[Any]:
    try:
        found = json.loads((folder / SEEDS).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{folder / SEEDS}: cannot be read ({error}); expected a list of [folder, seeds]") from error
    if not isinstance(found, list):
        raise UserError(f"{folder / SEEDS}: holds {type(found).__name__}; expected a list of [folder, seeds]")
    return found


def _folder_rows(part: Part) -> Iterator[Row]:
    for number, entry in enumerate(_seeds(part.path)[part.start : part.stop], part.first):
        try:
            folder, seeds = entry
            seeds = list(seeds)[: part.options["pairs"]]
            asked = _instruction(json.loads(inside(part.path / str(folder) / "prompt.json", part.path)))
        except (RowError, ValueError, TypeError) as error:
            yield Rejected(
                str(number), NAME, f"{str(entry)[:80]}: {error}; expected [folder, seeds] and its prompt.json"
            )
            continue
        for seed in seeds:
            name = row_id(folder, seed)
            files = {f"{folder}/{seed}_{side}": part.path / str(folder) / f"{seed}_{side}.jpg" for side in (0, 1)}
            yield _pair(name, asked, list(files), lambda key, own=files: inside(own[key], part.path), part)


def _table_row(row: Mapping[str, Any], name: str, part: Part) -> Row:
    cells = [next((row[key] for key in _BEFORE if row.get(key) is not None), None), row.get(_AFTER)]
    files = {f"{NAME}/{name}-{side}": picture_bytes(cell)[0] for side, cell in enumerate(cells)}

    def load(key: str) -> bytes:
        if not (data := files[key]):
            raise RowError(f"no picture {'to change' if key.endswith('-0') else 'that is changed'}: the cell is empty")
        return data

    try:
        return _pair(name, _instruction({"edit": row.get(_ASKED)}), list(files), load, part)
    except RowError as error:
        return Rejected(name, NAME, str(error))


def _instruction(prompt: Any) -> str:
    text = prompt.get("edit") if isinstance(prompt, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise RowError(f"the instruction is {text!r}; expected a text")
    return check_text(text.strip(), "the instruction")


def _pair(name: str, asked: str, keys: list[str], load: Any, part: Part) -> Row:
    turns = edited(asked, (keys[0], None), (keys[1], None), part.options["seed"], name)
    return with_pictures(Record(name, NAME, turns, {"kind": "edit"}), load)
