"""`vargpt evaluate`: ask a run's model everything that evaluation asks, score it, and write the report.

With `--benchmarks` any system is asked public benchmarks instead (`commands/benchmarks.py`), and `vargpt evaluate
images` measures generated pictures (`commands/evaluate_images.py`).

What is asked is kept in RUN/evaluation/asked.json, with the settings, and the real pictures beside it: a run can be
evaluated again without its data, and a killed evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands import benchmarks
from vargpt_lightning.commands.options import add_sampling, generation_settings
from vargpt_lightning.evaluation.run.benchmark_results import score_own_answers
from vargpt_lightning.evaluation.run.examine import check_asked, examine, load_asked, print_figures, sampling_of
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant

EXAMPLE = """examples:
  vargpt evaluate runs/openmoji
  vargpt evaluate runs/openmoji --cfg 3 --out cfg3
  vargpt evaluate llava-hf/llava-1.5-7b-hf --benchmarks mme,pope --data data --limit 100
  torchrun --nproc-per-node 8 -m vargpt_lightning.cli evaluate runs/7b --benchmarks all --data data
  vargpt evaluate images --help
  vargpt evaluate export --benchmarks mme --data data --out for-others
"""
IMAGES = "images"
EXPORT = "export"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt evaluate",
        description="Evaluate a finished run again and rebuild its report, or run public benchmarks on any model. An "
        "interrupted command resumes when run again. `vargpt evaluate images` measures generated pictures.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "run", metavar="MODEL", help="the run folder; for benchmarks also a model's directory, hub id or endpoint"
    )
    result.add_argument("--out", type=Path, metavar="DIR", help="another folder for the figures; a run's own stay")
    benchmarks.add_options(result.add_argument_group("benchmarks"))
    again = result.add_argument_group("a run")
    again.add_argument("--report-only", action="store_true", help="score the answers there are and rebuild the report")
    add_sampling(again)
    return result


def main(argv: list[str]) -> int:
    """Evaluate and print the figures."""
    if argv[:1] == [IMAGES]:
        from vargpt_lightning.commands.evaluate_images import main as measure_images

        return measure_images(argv[1:])
    if argv[:1] == [EXPORT]:
        from vargpt_lightning.commands.evaluate_export import main as export

        return export(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.benchmarks is not None:
        _refuse(arguments, _RUN_OPTIONS, "have no meaning with --benchmarks")
        return benchmarks.run(arguments)
    _refuse(arguments, _BENCHMARK_OPTIONS, "need --benchmarks")
    if arguments.out is None:
        _refuse(arguments, _SAMPLING_OPTIONS, "need --out DIR: a run's own figures are made with its own settings")
    run = RunFolder(arguments.run)
    if arguments.out is not None:
        output_folder(arguments.out)
    metrics = _rescore(run) if arguments.report_only else _again(run, arguments)
    print_figures(metrics)
    print(f"report: {run.report}" if arguments.out is None else f"figures: {arguments.out / 'metrics.json'}")
    if arguments.out is None and run.benchmark_report.is_file():
        print(f"benchmarks: {run.benchmark_report}")
    return 0


_SAMPLING_OPTIONS = ("top_k", "top_p", "cfg", "temperature", "text_temperature", "seed")
_RUN_OPTIONS = ("report_only", *_SAMPLING_OPTIONS)
_BENCHMARK_OPTIONS = (
    *("data", "hub_owner", "limit", "batch_size", "style", "dtype", "option"),
    *("protocol", "guess", "allow_partial"),
)


def _refuse(arguments: Any, names: Sequence[str], why: str) -> None:
    """Refuse options of the command's other use: they would have no effect."""
    values = {name: getattr(arguments, name) for name in names}
    given = [  # 0 is a value like others
        f"--{name.replace('_', '-')}"
        for name, value in values.items()
        if not (value is None or value is False or value == [])
    ]
    if given:
        raise UserError(f"{', '.join(given)} {why}")


def _again(run: RunFolder, arguments: Any) -> dict[str, Any]:
    finished_stage(run, arguments.stage)
    check_asked(run.evaluation)
    with working(f"loading {run.path}"):
        with importing():
            from vargpt_lightning.evaluation.run.runner import rich_progress
            from vargpt_lightning.inference.load import load_run
        choose(arguments.device)
        asked, settings, generation = load_asked(run.evaluation)
        assistant = load_run(arguments.run, arguments.stage, arguments.device)
    assistant.settings = generation
    assistant.settings = generation_settings(assistant, arguments)
    if arguments.out is not None and not arguments.replace:
        _check_free(arguments.out, assistant)
    if arguments.out is None and run.metrics().get("complete"):
        for name in ("answers", "drawings", "reconstructions"):
            (run.evaluation / f"{name}.jsonl").unlink(missing_ok=True)
    with rich_progress() as progress:
        return examine(run, assistant, asked, settings, arguments.out, progress)


def _check_free(out: Path, assistant: Assistant) -> None:
    """Refuse a folder with the figures of other weights, or of other settings: a figure must not change its meaning."""
    from vargpt_lightning.utils.files import plain

    if not (out / "inputs.json").is_file():
        return
    before, now = read_json(out / "inputs.json"), {"model": assistant.digest, "sampling": plain(sampling_of(assistant))}
    for key, value in now.items():
        if before.get(key) != value:
            raise UserError(
                f"{out} holds the figures of another {key}: {before.get(key)}, and this is {value}; expected another "
                "--out, or --replace to write over them"
            )


def _rescore(run: RunFolder) -> dict[str, Any]:
    from vargpt_lightning.evaluation.reports.report import build_report
    from vargpt_lightning.evaluation.run.scoring import score_folder

    metrics = score_folder(run.evaluation)
    score_own_answers(run)
    build_report(run)
    return metrics
