"""What a command shows of benchmarks: a table of their figures, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.runs.folder import RunFolder


def show(
    results: Sequence[Mapping[str, Any]], out: Path, data: Mapping[str, Path], refused: Sequence[str] = ()
) -> None:
    """Print the figures, and write the report of all that there are in `out`.

    Raises:
        UserError: scoring was refused; after everything else is shown.
    """
    if results:
        print_results(results)
        print(f"report: {write_report(out, data)}", flush=True)
    if refused:
        raise UserError("; ".join(refused))


def default_out(model: str) -> Path:
    """Return RUN/benchmarks for a run's folder, benchmarks/<model> for any other system."""
    from vargpt_lightning.evaluation.base.files import file_stem

    path = Path(model)
    return path / "benchmarks" if (path / "run.json").is_file() else Path("benchmarks") / file_stem(model.strip("/."))


def write_report(out: Path, data: Mapping[str, Path]) -> Path:
    """Write the report of the benchmarks in a folder into it; return its first page.

    Args:
        data: where the data are of those that were asked or scored now; others in the folder know their own.
    """
    from vargpt_lightning.evaluation.harness.select import FILE, Asked
    from vargpt_lightning.evaluation.reports.benchmarks import build_benchmark_report

    before = [Asked.read(file.parent) for file in out.glob(f"*/{FILE}")]
    known = {asked.benchmark: Path(asked.data) for asked in before if asked.data and Path(asked.data).exists()}
    return build_benchmark_report([out], out, {**known, **data})


def score_own_answers(run: RunFolder) -> Path | None:
    """Score what a run's evaluation was told about held-out pictures as the benchmark `openmoji`; report it.

    Nothing is asked again. Returns the report's first page; None for a run without such questions, with a line that
    says why.
    """
    from vargpt_lightning.evaluation.benchmarks import openmoji
    from vargpt_lightning.evaluation.harness.run import run_benchmark
    from vargpt_lightning.evaluation.systems.files import Predictions
    from vargpt_lightning.utils.files import read_json

    out = run.path / "benchmarks"
    if not (run.evaluation / "answers.jsonl").is_file():
        print("benchmarks: none, the evaluation asked no questions", flush=True)
        return None
    try:
        # answers about pictures that were trained on are in the same file, and no part of the benchmark
        answers = Predictions(run.evaluation / "answers.jsonl", allow="unknown")
        inputs = read_json(run.evaluation / "inputs.json")
        settings = {**inputs["sampling"], "answers": answers.digest}
        facts = {"model": run.name, "digest": inputs["model"], "settings": settings}
        for old in ("result.lmms_eval.json", "scores.lmms_eval.jsonl"):  # what earlier releases named the rule
            (out / openmoji.NAME / old).unlink(missing_ok=True)
        run_benchmark(answers, openmoji, run.evaluation, out, facts=facts)
    except UserError as error:
        print(f"benchmarks: none, {error}", flush=True)
        return None
    return write_report(out, {openmoji.NAME: run.evaluation})


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Print the headline figures as a table, with what must be known to read them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("benchmark", "protocol", "metric", "value", "95 % interval", "n", "notes"):
        table.add_column(name, overflow="fold", justify="right" if name in ("value", "n") else "left")
    for result in results:
        figures, scale = result["figures"], result["scale"]
        value, low, high = (_number(figures.get(key), scale) for key in (result["headline"], "low", "high"))
        cells = (result["title"], result["protocol"], result["headline"], value, f"{low} to {high}")
        table.add_row(*cells, f"{figures.get('n', 0):.0f}", _notes(result))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width: give every column its room
        console = Console(width=200)
    console.print(table)


def _number(value: Any, scale: float) -> str:
    return "–" if value is None else f"{scale * value:.1f}"


def _notes(result: Mapping[str, Any]) -> str:
    figures = result["figures"]
    notes = [f"limit {result['limit']}: {result['asked']} of {result['total']}"] if result.get("limit") else []
    notes += [f"{result[name]} {name}" for name in ("missing", "skipped") if result.get(name)]
    counted = ("empty", "unparsed", "guessed", "judged", "truncated")
    notes += [f"{figures[name]:.0f} {name}" for name in counted if figures.get(name)]
    return ", ".join([*notes, *(["partial"] if result.get("partial") else [])])
