"""Rows of a file of answers, of the forms that `files` describes. Imports no torch, pyarrow only where it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.adapters.foreign_rows import TABLES, is_foreign, output_of, table_rows
from vargpt_lightning.evaluation.protocols import Reply

IDS = ("id", "question_id")
OUTPUTS = ("output", "prediction", "response", "text", "answer")
COLUMNS = (*IDS, *OUTPUTS, "benchmark", "finish")

Key = tuple[str, str]
"""Benchmark, "" where the row names none, and id."""


def read_predictions(path: Path) -> Iterator[tuple[Key, Reply | None, Mapping[str, Any]]]:
    """Yields the keys, answers and rows of a file; an answer is None where it is null, or was never given.

    The key of a row that another project wrote is its place: which question it means is found when the benchmark is
    known (`foreign_rows.ids_of`), and its row is not empty.

    Raises:
        UserError: the file cannot be read, or a row has no id or an output that is no text.
    """
    for number, (where, row) in enumerate(_rows(path)):
        if is_foreign(row) and ("id" not in row or "index" in row):
            _, reply = _prediction({"id": number, **_answered(row)}, where)
            yield (str(row.get("benchmark") or ""), f"row {number}"), reply, row
        else:
            yield *_prediction(row, where), {}


def _answered(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of another project answers; its key column is none of its outputs."""
    kept = output_of(row)
    if kept is not None:
        return {"output": kept}
    # beside a prediction or a text, an answer is the right one
    return {name: row[name] for name in OUTPUTS if name in row} | {"finish": row.get("finish")}


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file with where each stands."""
    readers: dict[str, Callable[[Path], Iterable[Any]]] = {".jsonl": _lines, ".json": _objects, ".parquet": _columns}
    readers |= dict.fromkeys(TABLES, table_rows)
    if path.suffix not in readers:
        raise UserError(f"{path}: expected a file of answers, {', '.join(readers)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    empty = True
    for number, row in enumerate(readers[path.suffix](path), start=1):
        where, empty = f"{path}, row {number}", False
        if not isinstance(row, dict):
            raise UserError(f"{where}: {str(row)[:60]!r}; expected an object with an id and an output")
        yield where, row
    if empty:
        raise UserError(f"{path}: holds no answers")


def _lines(path: Path) -> Iterator[Any]:
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json(line, f"{path}, line {number}")


def _objects(path: Path) -> Iterator[Any]:
    found = _json(path.read_bytes(), str(path))
    if isinstance(found, dict) and isinstance(found.get("logs"), list):  # of lmms-eval before its lines
        found = found["logs"]
    if isinstance(found, dict):
        found = [{"id": id_, "output": output} for id_, output in found.items()]
    if not isinstance(found, list):
        raise UserError(f"{path}: expected a list of answers or an object of id: output")
    yield from found


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON ({error})") from error


def _columns(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in COLUMNS if name in file.schema_arrow.names]
            if not set(names) & set(IDS) or not set(names) & set(OUTPUTS):
                there = ", ".join(file.schema_arrow.names)
                raise UserError(f"{path}: has the columns {there}; expected {_NEEDED}")
            for batch in file.iter_batches(columns=names):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable as parquet ({error})") from error


_NEEDED = f"{' or '.join(IDS)}, and {' or '.join(OUTPUTS)}"


def _prediction(row: Mapping[str, Any], where: str) -> tuple[Key, Reply | None]:
    """A row's key and answer; None for an answer that is null, or was never given."""
    id_ = next((row[name] for name in IDS if row.get(name) is not None), None)
    if isinstance(id_, float) and id_.is_integer():  # tables make numbers with a point of integers
        id_ = int(id_)
    if isinstance(id_, bool) or not isinstance(id_, (str, int)):
        raise UserError(f"{where}: has the id {id_!r}; expected {_NEEDED}")
    name = next((name for name in OUTPUTS if name in row), None)
    if name is None and not row.get("skipped"):
        raise UserError(f"{where}: has {', '.join(map(str, row))}; expected {_NEEDED}")
    output = row[name] if name is not None else None
    key = (str(row.get("benchmark") or ""), str(id_))
    if output is None:
        return key, None
    if not isinstance(output, (str, int, float)):
        raise UserError(f"{where}: {name} is {str(output)[:60]}; expected text")
    finish = row.get("finish")
    return key, Reply(str(output), finish=finish if finish in ("stop", "length") else "")
