"""The run folder: write it, find it, read it. Imports no torch, so that reading results is instant.

    runs/<name>/
        run.json                      what was run, when, with which versions, and how it ended
        config.yaml                   the resolved configuration
        tokenizer/                    the text tokenizer
        stages/01-tokenizer/          stage.json, metrics.csv, last.ckpt, model.safetensors, samples/*.png
        evaluation/                   metrics.json, answers.jsonl, drawings.jsonl, drawings/*.png
        benchmarks/                   index.html, and a folder for each benchmark
        report.html

Every JSON file is replaced in one step (temporary name, then rename), and every line-by-line file tolerates a torn last
line, so that a process killed at any moment leaves a folder that can be read and resumed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vargpt_lightning.runs.provenance import is_alive, machine, package_versions, source_commit
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.files import (
    cut_torn_line,
    read_jsonl,
    read_object,
    write_bytes,
    write_json,
)
from vargpt_lightning.utils.heldout import with_heldout

if TYPE_CHECKING:
    pass

SCHEMA_VERSION = 1
STATUSES = ("running", "interrupted", "failed", "finished")


class MetricRow(NamedTuple):
    """One logged number: `name` had `value` after `step` optimizer steps of its stage."""

    step: int
    name: str
    value: float


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class StageFolder:
    """One stage's folder, `stages/01-tokenizer`: its record, its metric rows, its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def record(self) -> dict[str, Any]:
        """What stage.json says: index, name, hash, status, steps, seconds, peak_memory, ...; empty without one."""
        file = self.path / "stage.json"
        return read_object(file) if file.is_file() else {}

    @property
    def index(self) -> int:
        return int(self.path.name.split("-", 1)[0])

    @property
    def name(self) -> str:
        return self.path.name.split("-", 1)[1]

    @property
    def status(self) -> str:
        return str(self.record.get("status", "running"))

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    def update(self, **fields: Any) -> None:
        """Sets fields of stage.json (hash, status, steps, seconds, peak_memory in bytes, trained, ...)."""
        write_json(self.path / "stage.json", {**self.record, "index": self.index, "name": self.name, **fields})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one row a value to metrics.csv."""
        file = self.path / "metrics.csv"
        self.path.mkdir(parents=True, exist_ok=True)
        cut_torn_line(file)
        start = not file.is_file() or file.stat().st_size == 0
        with open(file, "a", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            if start:
                writer.writerow(MetricRow._fields)
            writer.writerows((step, name, repr(float(value))) for name, value in values.items())

    def metrics(self) -> list[MetricRow]:
        """The logged rows by step; where a resumed stage logged a step again, its last value counts."""
        file = self.path / "metrics.csv"
        if not file.is_file():
            return []
        found: dict[tuple[int, str], float] = {}
        with open(file, newline="", encoding="utf-8", errors="replace") as lines:
            # A line without its end was torn by a kill: its number may lack digits.
            for cells in csv.reader(line.replace("\0", "") for line in lines if line.endswith("\n")):
                with contextlib.suppress(ValueError):  # the heading
                    step, name, value = cells
                    found[int(step), name] = float(value)
        in_order = sorted(found.items(), key=lambda item: item[0][0])
        return [MetricRow(step, name, value) for (step, name), value in in_order]

    def forget_after(self, step: int) -> None:
        """Drops the rows later than a step: what a killed attempt logged beyond its last checkpoint."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([MetricRow._fields, *(row for row in self.metrics() if row.step <= step)])
        write_bytes(self.path / "metrics.csv", text.getvalue().encode())

    def samples(self) -> list[Path]:
        """The sample grids, oldest step first."""
        return sorted((self.path / "samples").glob("*.png"))


# ---------------------------------------------------------------------------------------------------------- the run


class RunFolder:
    """A run folder that exists. Raises UserError that says what is missing when the folder is not one."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a run folder: there is no such folder{near_path(self.path)}")
        if not (self.path / "run.json").is_file():
            raise UserError(f"{self.path} is not a run folder: run.json is missing")
        version = self.record.get("version")
        if version != SCHEMA_VERSION:
            raise UserError(f"{self.path / 'run.json'} has version {version!r}; this release reads {SCHEMA_VERSION}")

    @classmethod
    def start(
        cls,
        path: Path | str,
        *,
        command: Sequence[str] = (),
        config: str | None = None,
        config_text: str | None = None,
        seed: int | None = None,
    ) -> RunFolder:
        """Creates the folder, or takes up the run in it, and marks it running.

        Args:
            path: the folder; it is new, empty, or a run.
            command: the command line as typed.
            config: the path of the experiment's YAML as given.
            config_text: the resolved configuration, kept as config.yaml.
            seed: the run's seed.

        Raises:
            UserError: the folder holds other things, or the path is a file.
        """
        path = Path(path)
        for each in (path, *path.parents):
            if each.exists() and not each.is_dir():
                raise UserError(f"{path}: {each} is a file; a run needs a folder")
        is_run = (path / "run.json").is_file()
        if path.is_dir() and not is_run and any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise UserError(f"{path} is neither empty nor a run folder (run.json is missing); name another folder")
        record: dict[str, Any] = {"version": SCHEMA_VERSION, "name": path.resolve().name, "started": now()}
        if is_run:
            record = cls(path).record
        attempt = {"command": list(command), "started": now(), "pid": os.getpid(), "host": socket.gethostname()}
        record |= {"status": "running", "command": list(command), "config": config, "seed": seed, "ended": None}
        record |= {"versions": package_versions(), "commit": source_commit(), "machine": machine()}
        record["attempts"] = [*record.get("attempts", []), attempt]
        record.setdefault("durations", {})
        write_json(path / "run.json", record)
        if config_text is not None:
            write_bytes(path / "config.yaml", config_text.encode())
        return cls(path)

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says."""
        return read_object(self.path / "run.json")

    @property
    def name(self) -> str:
        return str(self.record.get("name") or self.path.resolve().name)

    @property
    def status(self) -> str:
        """One of STATUSES; a run that says it is running although its process is gone is interrupted."""
        record = self.record
        attempt = (record.get("attempts") or [{}])[-1]
        if record.get("status") == "running" and attempt.get("host") == socket.gethostname():
            return "running" if is_alive(attempt.get("pid"), attempt.get("started")) else "interrupted"
        return str(record.get("status", "interrupted"))

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def benchmark_report(self) -> Path:
        return self.path / "benchmarks" / "index.html"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def config_text(self) -> str:
        file = self.path / "config.yaml"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def update(self, **fields: Any) -> None:
        """Sets fields of run.json."""
        write_json(self.path / "run.json", {**self.record, **fields})

    def add_duration(self, part: str, seconds: float) -> None:
        """Adds to the time that a stage, or another part such as `evaluation`, took over all attempts."""
        durations = dict(self.record.get("durations", {}))
        durations[part] = durations.get(part, 0.0) + seconds
        self.update(durations=durations)

    def end(self, status: str) -> None:
        """Closes the run as finished, failed or interrupted."""
        if status not in STATUSES:
            raise ValueError(f"status: got {status!r}, expected one of {', '.join(STATUSES)}")
        record = self.record
        attempts = [*record.get("attempts", [])]
        if attempts:
            attempts[-1] = {**attempts[-1], "ended": now(), "status": status}
        self.update(status=status, ended=now(), attempts=attempts)

    def stage(self, index: int, name: str) -> StageFolder:
        """The folder of a stage (index from 1), which may not exist yet."""
        return StageFolder(self.path / "stages" / f"{index:02d}-{name}")

    def stages(self) -> list[StageFolder]:
        """The stages that have a folder, in order."""
        folders = [entry for entry in (self.path / "stages").glob("*") if re.fullmatch(r"\d+-.+", entry.name)]
        return sorted((StageFolder(folder) for folder in folders if folder.is_dir()), key=lambda stage: stage.index)

    def metrics(self) -> dict[str, Any]:
        """The evaluation's figures (empty before there are any), those of all held-out pictures among them."""
        file = self.evaluation / "metrics.json"
        return with_heldout(read_object(file)) if file.is_file() else {}

    def answers(self) -> list[dict[str, Any]]:
        """The answers that the evaluation has so far."""
        return read_jsonl(self.evaluation / "answers.jsonl")

    def drawings(self) -> list[dict[str, Any]]:
        """The drawings that the evaluation has so far; their `files` are relative to `evaluation`."""
        return read_jsonl(self.evaluation / "drawings.jsonl")


def find_runs(root: Path | str, depth: int = 3, skipped: Callable[[str], None] | None = None) -> list[RunFolder]:
    """The runs in a folder and below it, the oldest first; a run.json that cannot be read is skipped.

    Args:
        skipped: is told of each that was skipped, and why.
    """
    runs = []
    for folder in find_run_folders(Path(root), depth):
        try:
            runs.append(RunFolder(folder))
        except UserError as error:
            if skipped is not None:
                skipped(str(error))
    return sorted(runs, key=lambda run: (str(run.record.get("started")), run.path))


def list_runs(root: Path | str, skipped: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """One row a run for a table: name, path, status, stage, started, seconds, headline (name to text).

    Args:
        skipped: is told of each run whose files cannot be read, and why; it has no row.
    """
    rows = []
    for run in find_runs(root, skipped=skipped):
        try:
            record, stages = run.record, run.stages()
            done = sum(stage.status == "finished" for stage in stages)
            headline = {item["name"]: item["text"] for item in run.metrics().get("headline", [])}
        except UserError as error:
            if skipped is not None:
                skipped(str(error))
            continue
        rows.append(
            {
                "name": run.name,
                "path": run.path,
                "status": run.status,
                "stage": f"{stages[-1].name} ({done}/{record.get('stage_count', len(stages))})" if stages else "",
                "started": record.get("started", ""),
                "seconds": sum(record.get("durations", {}).values()),
                "headline": headline,
            }
        )
    return rows


def find_run_folders(folder: Path, depth: int = 3) -> Iterator[Path]:
    """The folders with a run.json, whatever it says."""
    if (folder / "run.json").is_file():
        yield folder
    elif depth > 0 and folder.is_dir():
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from find_run_folders(entry, depth - 1)
