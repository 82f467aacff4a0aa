"""How long tables of many runs take: copies of a finished run, read as docs/results.md does.

    python -m tests.benchmarks.bench_load_runs runs/openmoji [1000]

Prints seconds of each table, wall and processor time, with the files in the page cache.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from vargpt_lightning.results import load_runs
from vargpt_lightning.runs.tables import TABLES

TEXT = {".json", ".jsonl", ".csv", ".yaml"}


def copy_run(run: Path, root: Path, count: int) -> None:
    """Copy what tables are read from; weights and pictures stay behind."""
    files = [file for file in run.rglob("*") if file.suffix in TEXT and not {"cache", "tokenizer"} & set(file.parts)]
    for number in range(count):
        for file in files:
            target = root / f"run{number:04d}" / file.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def main(run: str, count: str = "1000") -> None:
    """Print a line a table, and one of all."""
    with tempfile.TemporaryDirectory() as root:
        copy_run(Path(run), Path(root), int(count))
        began = time.perf_counter(), time.process_time()
        loaded = load_runs(root)
        for name in TABLES:
            before = time.perf_counter(), time.process_time()
            show(name, f"{len(getattr(loaded, name)):,} rows", before)
        show("all", f"{count} runs", began)


def show(what: str, size: str, since: tuple[float, float]) -> None:
    """Print what has taken how long."""
    wall, cpu = time.perf_counter() - since[0], time.process_time() - since[1]
    print(f"{what:12} {size:>16}  {wall:6.2f} s  {cpu:6.2f} CPU s")


if __name__ == "__main__":
    main(*sys.argv[1:])
