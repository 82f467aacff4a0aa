"""Answers and drawings of many runs as one table: all files of a kind are parsed in one call, by pyarrow."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vargpt_lightning.utils.files import read_jsonl

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = (
    "run",
    "source",
    "id",
    "kind",
    "split",
    "prompt",
    "expected",
    "answer",
    "value",
    "picture",
    "files",
    "rank",
    "nearest",
    "seed",
    "group",
)
LABELS = ("run", "source", "split")  # those that a file has, not its rows
TEXTS = ("id", "kind", "split", "prompt", "answer", "picture", "text", "nearest", "output", "category", "group")
BLOCK = 1 << 24  # bytes that pyarrow parses at a time
SCORED = {"output": "answer", "answer": "expected", "category": "kind"}


class Labelled(NamedTuple):
    """A file and what its rows are labelled with; a split of None is that of each row."""

    file: Path
    run: str
    source: str
    split: str | None = None


def read_predictions(paths: Mapping[str, Path]) -> pd.DataFrame:
    """Return one row an answer or a drawing of runs (names to folders), those of a kind together."""
    return read_folders(
        {run: path / "evaluation" for run, path in paths.items()},
        {run: path / "benchmarks" for run, path in paths.items()},
    )


def read_folders(evaluations: Mapping[str, Path], benchmarks: Mapping[str, Path]) -> pd.DataFrame:
    """Return one row an answer or a drawing.

    Args:
        evaluations: names of runs, and the folders of their evaluations.
        benchmarks: names, and folders with a folder for each benchmark.
    """
    import pandas as pd

    parts = [_questions(evaluations), _drawings(evaluations), _benchmarks(benchmarks)]
    found = [part.reindex(columns=list(COLUMNS)) for part in parts if len(part)]
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    for part in found:  # an empty column has no type of its own
        for name in COLUMNS:
            if part[name].isna().all():
                part[name] = part[name].astype(object)
    return pd.concat(found, ignore_index=True)


def _questions(folders: Mapping[str, Path]) -> pd.DataFrame:
    return _read(Labelled(folder / "answers.jsonl", run, "questions") for run, folder in folders.items())


def _drawings(folders: Mapping[str, Path]) -> pd.DataFrame:
    def named(name: str) -> Iterator[Labelled]:
        return (Labelled(folder / name, run, "drawings") for run, folder in folders.items())

    drawn = _read(named("drawings.jsonl")).rename(columns={"text": "answer"})
    scores = _read(named("drawing_scores.jsonl"))
    if not len(scores) or not len(drawn):
        return drawn
    scores = scores[[name for name in ("run", "id", "rank", "nearest") if name in scores]]
    scores = scores.drop_duplicates(["run", "id"], keep="last")
    drawn = drawn[[name for name in drawn if name not in ("rank", "nearest")]]
    return drawn.merge(scores, on=["run", "id"], how="left")


def _benchmarks(folders: Mapping[str, Path]) -> pd.DataFrame:
    files = [
        Labelled(file, run, f"benchmarks/{file.parent.name}", protocol_of(file))
        for run, folder in folders.items()
        for file in sorted(folder.glob("*/scores.*.jsonl"))
    ]
    table = _read(files)
    kept = [name for name in table if name not in ("expected", "kind")]  # which these rows call otherwise
    return table[kept].rename(columns=SCORED)


def protocol_of(file: Path) -> str:
    """Return `lmms_eval_0.3` of `scores.lmms_eval_0.3.jsonl`."""
    return file.stem.split(".", 1)[1]


def _read(files: Iterable[Labelled]) -> pd.DataFrame:
    """Return the rows of all files with their labels."""
    import pandas as pd

    there = [(each, content) for each in files if (content := _content(each.file))]
    if not there:
        return pd.DataFrame()
    counts = [content.count(b"\n") for _, content in there]
    whole = _parsed(b"".join(content for _, content in there), sum(counts))
    if whole is not None:
        return _labelled(whole, [each for each, _ in there], counts)
    parts = []
    for (each, content), count in zip(there, counts, strict=True):
        own = _parsed(content, count)
        if own is not None:
            parts.append(_labelled(own, [each], [count]))
        elif rows := read_jsonl(each.file):  # the slow way finds what is whole of a broken file
            known = pd.DataFrame([{key: value for key, value in row.items() if key not in LABELS[:2]} for row in rows])
            parts.append(_with_labels(known, [each], [len(rows)]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _content(file: Path) -> bytes:
    """A file's lines; what a kill left of the last one is left out."""
    try:
        content = file.read_bytes()
    except OSError:
        return b""
    end = content.rfind(b"\n") + 1
    if tail := content[end:].strip():
        try:
            json.loads(tail)
            content = content[:end] + tail + b"\n"
        except (ValueError, RecursionError):
            content = content[:end]
    return content


def _parsed(content: bytes, lines: int) -> pa.Table | None:
    """Return the rows of whole lines; None where they are not alike, or not all are JSON objects."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    fields = {name: pa.string() for name in TEXTS}
    fields |= {"value": pa.float64(), "rank": pa.int64(), "seed": pa.int64(), "files": pa.list_(pa.string())}
    one, several = pa.string(), pa.list_(pa.string())
    for expected, answer in ((one, one), (one, several), (several, one)):  # benchmarks expect one answer, or several
        schema = pa.schema(list((fields | {"expected": expected, "answer": answer}).items()))
        options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            table = arrow_json.read_json(io.BytesIO(content), arrow_json.ReadOptions(block_size=BLOCK), options)
        except pa.ArrowException:
            continue
        return table if table.num_rows == lines else None
    return None


def _labelled(table: pa.Table, files: Sequence[Labelled], counts: Sequence[int]) -> pd.DataFrame:
    there = [name for name in table.column_names if table[name].null_count < len(table)]
    frame = table.select(there).to_pandas()
    for name in there:
        if str(table[name].type).startswith("list"):  # lists, as the slow way has them, in place of arrays
            frame[name] = table[name].to_pylist()
    return _with_labels(frame, files, counts)


def _with_labels(frame: pd.DataFrame, files: Sequence[Labelled], counts: Sequence[int]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    for name in LABELS:
        values = pd.Series([getattr(each, name) for each in files])
        if name != "split" or values.notna().any():
            frame[name] = values.take(np.repeat(np.arange(len(files)), counts)).reset_index(drop=True)
    return frame
