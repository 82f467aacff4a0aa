"""Many run folders as tidy tables. Imports pandas and no torch.

Every table has a column `run`, the run's path below the folder that was asked for, so that tables can be joined. Files
are read when a table is asked for the first time; a file that a kill tore apart gives what is whole of it. The columns
are described in docs/results.md.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vargpt_lightning.runs.folder import SCHEMA_VERSION, StageFolder, find_run_folders
from vargpt_lightning.runs.predictions import protocol_of, read_predictions
from vargpt_lightning.runs.provenance import is_alive
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json
from vargpt_lightning.utils.heldout import with_heldout

if TYPE_CHECKING:
    import pandas as pd

Where = Mapping[str, Any] | Callable[[dict[str, Any]], bool]
TABLES = ("runs", "metrics", "evaluations", "predictions")
RUN_COLUMNS = (
    *("run", "name", "path", "status", "seed", "config", "stage", "stages_finished", "stage_count", "seconds"),
    *("started", "ended", "peak_memory", "commit", "host", "version"),
)
METRIC_COLUMNS = ("run", "stage", "step", "name", "value")
EVALUATION_COLUMNS = ("run", "source", "name", "split", "value", "low", "high", "n")


class Runs:
    """The tables of some runs: `runs`, `metrics`, `evaluations`, `predictions`, and `config(run)`."""

    def __init__(self, paths: Mapping[str, Path], records: Mapping[str, dict[str, Any]]) -> None:
        self._paths, self._records = dict(paths), dict(records)

    def __len__(self) -> int:
        return len(self._records)

    def path(self, run: str) -> Path:
        """The folder of a run, by its name in the tables."""
        return self._paths[run]

    def config(self, run: str) -> dict[str, Any]:
        """The run's resolved configuration; empty when it has none."""
        return read_config(self.path(run))

    def values(self, *keys: str) -> pd.DataFrame:
        """A table of runs and of some values of their configurations, by dotted keys, such as `model.decoder.depth`."""
        rows = [{"run": run, **{key: _at(self.config(run), key) for key in keys}} for run in self._records]
        return _frame(rows, ("run", *keys))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run."""
        return _frame([self._run_row(run, record) for run, record in self._records.items()], RUN_COLUMNS)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a logged number; where a resumed stage logged a step again, its last value."""
        import pandas as pd

        parts, labels = [], []
        for run in self._records:
            for stage in _stages(self.path(run)):
                content = _whole_lines(stage.path / "metrics.csv")
                if content:
                    parts.append(content)
                    labels.append((run, stage.name, content.count(b"\n")))
        if not parts:
            return _frame([], METRIC_COLUMNS)
        table = _parsed(b"".join(parts))
        counts = [count for _, _, count in labels]
        for place, key in ((0, "run"), (1, "stage")):
            words = pd.Categorical([label[place] for label in labels])
            table.insert(place, key, words.repeat(counts))
        again = _logged_again(table, counts)
        return table[~again].reset_index(drop=True) if again.any() else table

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row a figure: the evaluation's own, and those of benchmarks."""
        rows = [row for run in self._records for row in _evaluation_rows(run, self.path(run))]
        return _frame(rows, EVALUATION_COLUMNS)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row an answer or a drawing; benchmarks' rows have the score as `value`."""
        return read_predictions({run: self.path(run) for run in self._records})

    def _run_row(self, run: str, record: dict[str, Any]) -> dict[str, Any]:
        stages = [_stage_record(stage) | {"name": stage.name} for stage in _stages(self.path(run))]
        attempt = (record.get("attempts") or [{}])[-1]
        known = {key: record.get(key) for key in ("seed", "config", "started", "ended", "peak_memory", "commit")}
        return {
            "run": run,
            "name": record.get("name") or Path(run).name,
            "path": str(self.path(run)),
            "status": record["status"],
            "stage": stages[-1]["name"] if stages else "",
            "stages_finished": sum(stage.get("status") == "finished" for stage in stages),
            "stage_count": record.get("stage_count", len(stages)),
            "seconds": float(sum((record.get("durations") or {}).values())),
            "host": attempt.get("host"),
            "version": record.get("version"),
            **known,
        }


def load_runs(folder: Path | str | Sequence[Path | str], where: Where | None = None) -> Runs:
    """Find the runs in a folder and below it, the oldest first.

    Args:
        folder: a run, or a folder of runs, such as a sweep's `trials`; or several of these.
        where: which ones: a function of run.json's content, or dotted keys of run.json or config.yaml with the value,
            the list of values, or a function of the value.

    Raises:
        UserError: there is no such folder.
    """
    roots = [Path(folder)] if isinstance(folder, (str, Path)) else [Path(each) for each in folder]
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; name the one that holds the runs")
    above = roots[0] if len(roots) == 1 else Path(os.path.commonpath([*map(os.path.abspath, roots)] or ["."]))
    records, paths = {}, {}
    for path in (path for root in roots for path in find_run_folders(root)):
        record = _record(path)
        if record is not None and (where is None or _wanted(where, record, path)):
            name = Path(os.path.relpath(path, above)).as_posix()
            records[name], paths[name] = record, path
    in_order = sorted(records.items(), key=lambda item: (str(item[1].get("started")), item[0]))
    return Runs(paths, dict(in_order))


def read_config(run: Path) -> dict[str, Any]:
    """Return a run's resolved configuration; empty when it has none that can be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError):
        tree = yaml.load((run / "config.yaml").read_text(encoding="utf-8"), loader)
        if isinstance(tree, dict):
            return tree
    return {}


def _record(path: Path) -> dict[str, Any] | None:
    """What run.json says, with the status that is true now; None when it cannot be read by this release."""
    with contextlib.suppress(UserError, OSError):
        record = read_json(path / "run.json")
        if isinstance(record, dict) and (record.get("version") or 0) <= SCHEMA_VERSION:
            attempt = (record.get("attempts") or [{}])[-1]
            status = str(record.get("status", "interrupted"))
            if status == "running" and not is_alive_here(attempt):
                status = "interrupted"
            return {**record, "status": status}
    return None


def _stage_record(stage: StageFolder) -> dict[str, Any]:
    """What stage.json says; empty when it cannot be read."""
    with contextlib.suppress(UserError, OSError):
        return stage.record
    return {}


def is_alive_here(attempt: Mapping[str, Any]) -> bool:
    """Whether an attempt of a run may still be at work: another machine's is believed."""
    import socket

    return attempt.get("host") != socket.gethostname() or is_alive(attempt.get("pid"), attempt.get("started"))


def _wanted(where: Where, record: dict[str, Any], path: Path) -> bool:
    if callable(where):
        return bool(where(record))
    for key, wanted in where.items():
        value = _at(record, key)
        if value is None:
            value = _at(read_config(path), key)
        fits = wanted(value) if callable(wanted) else value in wanted if isinstance(wanted, list) else value == wanted
        if not fits:
            return False
    return True


def _at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        if isinstance(tree, list):  # stages, by their names
            tree = next((item for item in tree if isinstance(item, dict) and item.get("name") == name), None)
        else:
            tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _stages(run: Path) -> list[StageFolder]:
    folders = [entry for entry in (run / "stages").glob("*-*") if entry.name.split("-", 1)[0].isdigit()]
    return sorted(map(StageFolder, folders), key=lambda stage: stage.index)


def _whole_lines(file: Path) -> bytes:
    """The rows of a metrics file without its heading and without a torn last line; numbers alone where they belong."""
    try:
        content = file.read_bytes()
    except OSError:
        return b""
    content = content[: content.rfind(b"\n") + 1]
    if b"\0" in content:  # to look is far cheaper than to replace
        content = content.replace(b"\0", b"")
    head, _, rest = content.partition(b"\n")
    return rest if head.rstrip(b"\r") == b"step,name,value" else content


def _parsed(content: bytes) -> pd.DataFrame:
    """The rows of many metrics files in one call: a call costs more than a small file."""
    import pyarrow as pa
    from pyarrow import csv

    kinds = {"step": pa.int64(), "name": pa.dictionary(pa.int32(), pa.string()), "value": pa.float64()}
    table = csv.read_csv(
        io.BytesIO(content),
        csv.ReadOptions(column_names=list(kinds), block_size=1 << 24),
        convert_options=csv.ConvertOptions(column_types=kinds, null_values=[""]),
    )
    return table.unify_dictionaries().to_pandas()


def _logged_again(table: pd.DataFrame, counts: list[int]) -> Any:
    """Which rows a later one of the same stage, step and name replaces, (rows,) booleans."""
    import numpy as np
    import pandas as pd

    again, begin = np.zeros(len(table), dtype=bool), 0
    place = table["step"].to_numpy() * len(table["name"].cat.categories) + table["name"].cat.codes.to_numpy()
    for count in counts:  # few numbers at a time fit the cache: all at once take five times as long
        own = place[begin : begin + count]
        in_order = np.sort(own)
        if (in_order[1:] == in_order[:-1]).any():
            again[begin : begin + count] = pd.Series(own).duplicated(keep="last").to_numpy()
        begin += count
    return again


def _evaluation_rows(run: str, path: Path) -> Iterator[dict[str, Any]]:
    metrics = with_heldout(_json(path / "evaluation" / "metrics.json"))
    for item in metrics.get("headline", []):
        yield {"run": run, "source": "headline", "name": item.get("key"), "value": item.get("value")}
    for kind, splits in metrics.get("questions", {}).items():
        for split, figures in splits.items():
            yield _figures(run, "questions", kind, split, figures, figures.get("accuracy"))
    for split, figures in metrics.get("drawings", {}).items():
        for name, value in figures.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield {"run": run, "source": "drawings", "name": name, "split": split, "value": value}
            elif isinstance(value, dict):
                yield from _rates(run, name, split, value)
    for file in sorted((path / "benchmarks").glob("*/result.*.json")):
        result = _json(file)
        figures, protocol = result.get("figures", {}), protocol_of(file)
        for name, value in figures.items():
            if name in ("n", "low", "high"):  # columns of their own
                continue
            ends = {key: figures.get(key) for key in ("low", "high")} if name == result.get("headline") else {}
            row = {"source": f"benchmarks/{file.parent.name}", "name": name, "split": protocol, "value": value}
            yield {"run": run, **row, **ends, "n": figures.get("n")}


def _figures(run: str, source: str, name: str, split: str, figures: dict[str, Any], value: Any) -> dict[str, Any]:
    ends = {key: figures.get(key) for key in ("low", "high", "n")}
    return {"run": run, "source": source, "name": name, "split": split, "value": value, **ends}


def _rates(run: str, name: str, split: str, figures: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The shares that a figure of the drawings consists of: `rate` alone, or `rate_1`, `rate_5`, each with its ends."""
    for key in figures:
        if key == "rate" or key.startswith("rate_"):
            end = key.removeprefix("rate")
            known = {"n": figures.get("n"), "low": figures.get(f"low{end}"), "high": figures.get(f"high{end}")}
            yield _figures(run, "drawings", f"{name}{end}", split, known, figures[key])


def _json(file: Path) -> dict[str, Any]:
    with contextlib.suppress(UserError, OSError):
        content = read_json(file)
        return content if isinstance(content, dict) else {}
    return {}


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
