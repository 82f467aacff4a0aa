"""`vargpt evaluate`: ask a run's model everything that evaluation asks, score it, and write the report.

With `--benchmarks` any system is asked public benchmarks instead, and `vargpt evaluate images` measures generated
pictures (`commands/evaluate_images`).

What is asked is kept in RUN/evaluation/asked.json, with the settings, and the real pictures beside it: a run can be
evaluated again without its data, and a killed evaluation resumes where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.commands.options import add_benchmark_options, add_sampling, benchmark_settings
from vargpt_lightning.evaluation.harness.data import check_data, check_options, chosen_modules, find_data
from vargpt_lightning.evaluation.run.again import examine_again, score_again
from vargpt_lightning.evaluation.run.benchmark_results import default_out
from vargpt_lightning.evaluation.run.examine import check_asked, load_asked, print_figures
from vargpt_lightning.inference.changed_settings import generation_settings
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.arguments import Parser, more_options
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import importing, working

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
    result.add_argument("--out", type=Path, metavar="DIR", help="another folder for the metrics; a run's own stay")
    add_benchmark_options(result.add_argument_group("benchmarks"))
    again = result.add_argument_group("a run")
    again.add_argument("--report-only", action="store_true", help="score the answers there are and rebuild the report")
    add_sampling(again, fast=False)
    return result


def main(argv: list[str]) -> int:
    """Evaluate and print the metrics."""
    if argv[:1] == [IMAGES]:
        from vargpt_lightning.commands.evaluate_images import main as measure_images

        return measure_images(argv[1:])
    if argv[:1] == [EXPORT]:
        from vargpt_lightning.commands.evaluate_export import main as export

        return export(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.benchmarks is not None:
        _refuse(arguments, _RUN_OPTIONS, "have no meaning with --benchmarks")
        return _benchmarks(arguments)
    _refuse(arguments, _BENCHMARK_OPTIONS, "need --benchmarks")
    if arguments.out is None:
        _refuse(arguments, _SAMPLING_OPTIONS, "need --out DIR: a run's own metrics are made with its own settings")
    run = RunFolder(arguments.run)
    if arguments.out is not None:
        output_folder(arguments.out)
    metrics = score_again(run, arguments.out) if arguments.report_only else _again(run, arguments)
    print_figures(metrics)
    print(f"report: {run.report}" if arguments.out is None else f"metrics: {arguments.out / 'metrics.json'}")
    if arguments.out is None and run.benchmark_report.is_file():
        print(f"benchmarks: {run.benchmark_report}")
    return 0


def _benchmarks(arguments: Any) -> int:
    """Check everything that is named before anything is loaded; then ask."""
    from vargpt_lightning.evaluation.run.benchmark_run import run_benchmarks
    from vargpt_lightning.evaluation.systems.open import check_system, runs_here

    check_system(arguments.run, arguments.stage)
    modules = chosen_modules(arguments.benchmarks, arguments.data, arguments.hub_owner)
    settings = benchmark_settings(arguments)
    check_options(modules, settings)
    data = find_data(modules, arguments.data, arguments.hub_owner)
    check_data(modules, data, settings.style, settings.protocols)
    out = arguments.out or default_out(arguments.run)
    own = arguments.out is None and (Path(arguments.run) / "run.json").is_file()  # a run's own metrics are its last
    output_folder(out)
    if arguments.device is not None and runs_here(arguments.run):
        choose(arguments.device)
    given = {name: getattr(arguments, name) for name in ("device", "dtype", "stage")}
    options = {name: value for name, value in given.items() if value is not None} | more_options(arguments.option)
    run_benchmarks(arguments.run, modules, data, out, settings, options, own or bool(arguments.replace))
    return 0


_SAMPLING_OPTIONS = ("top_k", "top_p", "cfg", "temperature", "sampler", "size", "text_temperature", "seed")
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
            from vargpt_lightning.inference.load import load_run
        choose(arguments.device)
        asked, settings, generation = load_asked(run.evaluation)
        assistant = load_run(arguments.run, arguments.stage, arguments.device)
    assistant.settings = generation
    assistant.settings = generation_settings(assistant, arguments)
    return examine_again(run, assistant, asked, settings, arguments.out, bool(arguments.replace))
