"""`vargpt score`: outputs scored without the model. Imports no torch.

PREDICTIONS is a file with an id and an output in each row, or a folder that `vargpt evaluate --benchmarks` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vargpt_lightning.commands.options import add_data_options, add_scoring_options, benchmark_settings
from vargpt_lightning.evaluation.harness.data import check_options, chosen_modules, find_data
from vargpt_lightning.evaluation.run.benchmark_results import default_out, show
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.paths import output_folder

EXAMPLE = """examples:
  vargpt score minigpt4.jsonl --benchmark mme --data data --out benchmarks/minigpt4
  vargpt score benchmarks/minigpt4 --protocol official
"""
ASKED = "asked.json"
BATCH = 2000  # rows written at a time


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt score",
        description="Score outputs of a benchmark without the model that made them.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "predictions", type=Path, metavar="PREDICTIONS", help="a .jsonl, .json or .parquet file, or a folder of outputs"
    )
    result.add_argument(
        "--benchmark",
        metavar="NAME",
        help="name of the benchmark; for a folder of outputs also several, by default all in it",
    )
    add_data_options(result)
    result.add_argument("--out", type=Path, metavar="DIR", help="folder for results (beside the outputs)")
    add_scoring_options(result)
    files = result.add_argument_group("a file of predictions")
    files.add_argument("--style", metavar="NAME", help="prompt style that was used, for the record (llava)")
    files.add_argument("--limit", type=whole(1), metavar="N", help="score the N questions that evaluate --limit asks")
    files.add_argument("--allow", metavar="NAMES", help="score even if ids are missing, unknown or duplicate")
    return result


def main(argv: list[str]) -> int:
    """Score, print the metrics, and write the report."""
    arguments = parser().parse_args(argv)
    show(*(_again(arguments) if arguments.predictions.is_dir() else _file(arguments)))
    return 0


Scored = tuple[list[Mapping[str, Any]], Path, dict[str, Path], list[str]]


def _file(arguments: argparse.Namespace) -> Scored:
    """Take a file's predictions over into a folder of outputs, and score them there."""
    from vargpt_lightning.evaluation.harness.run import run_benchmark
    from vargpt_lightning.evaluation.systems.open import open_system

    if not arguments.predictions.is_file():
        raise UserError(f"{arguments.predictions}: there is no such file or folder{near_path(arguments.predictions)}")
    if arguments.benchmark is None:
        raise UserError(f"{arguments.predictions}: --benchmark is not given; expected which one it answers")
    modules = chosen_modules(arguments.benchmark, arguments.data, arguments.hub_owner)
    if len(modules) > 1:
        raise UserError(f"--benchmark {arguments.benchmark}: a file holds the answers to one; expected one name")
    data = find_data(modules, arguments.data, arguments.hub_owner)
    out = arguments.out or default_out(arguments.predictions.stem)
    output_folder(out)
    arguments.batch_size = str(BATCH)
    settings = benchmark_settings(arguments)
    check_options(modules, settings)
    allow = tuple(name.strip() for name in arguments.allow.split(",")) if arguments.allow else None
    system = open_system(str(arguments.predictions), allow=allow)
    replace = bool(arguments.replace)
    results = run_benchmark(system, modules[0], data[modules[0].NAME], out, settings, replace_others=replace)
    return [*results.values()], out, data, []


def _again(arguments: argparse.Namespace) -> Scored:
    """Score what a folder has by other rules."""
    from vargpt_lightning.evaluation import benchmarks
    from vargpt_lightning.evaluation.base.benchmark import rule_of
    from vargpt_lightning.evaluation.harness.score import score_benchmark
    from vargpt_lightning.evaluation.harness.select import Asked, check_free

    for name in ("style", "limit", "allow"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name} goes with a file of predictions; the folder says how its outputs were asked")
    folder: Path = arguments.predictions
    if (folder / ASKED).is_file():
        folders = {Asked.read(folder).benchmark: folder}
        folder = folder.parent
    else:
        folders = {Asked.read(file.parent).benchmark: file.parent for file in sorted(folder.glob(f"*/{ASKED}"))}
    if not folders:
        raise UserError(f"{folder}: holds no outputs; expected a folder that `vargpt evaluate --benchmarks` wrote")
    wanted = [name.strip() for name in arguments.benchmark.split(",")] if arguments.benchmark else [*folders]
    if missing := [name for name in wanted if name not in folders]:
        raise UserError(f"--benchmark {missing[0]}: {folder} has outputs of {', '.join(folders)}")
    modules = [benchmarks.of_data(name, Asked.read(folders[name]).data) for name in wanted]
    if arguments.data is None and arguments.hub_owner is None:
        data = {name: _data_before(folders[name]) for name in wanted}
    else:
        data = find_data(modules, arguments.data, arguments.hub_owner)
    settings = benchmark_settings(arguments)
    check_options(modules, settings)
    out = arguments.out or folder
    output_folder(out)
    more: dict[str, Any] = {"allow_partial": settings.allow_partial, "options": settings.options}
    results: list[Mapping[str, Any]] = []
    refused: list[str] = []
    for module in modules:
        name = module.NAME
        if out != folder and not arguments.replace:
            check_free(out / name, Asked.read(folders[name]))
        try:
            for protocol in dict.fromkeys(rule_of(module, protocol) for protocol in settings.protocols):
                results.append(score_benchmark(module, data[name], folders[name], protocol, into=out / name, **more))
        except UserError as error:  # the others have metrics all the same
            refused.append(str(error))
    return results, out, data, refused


def _data_before(folder: Path) -> Path:
    """The data that the outputs were asked from, when they still are where they were."""
    from vargpt_lightning.evaluation.harness.select import Asked

    asked = Asked.read(folder)
    data = Path(asked.data)
    if not asked.data or not data.exists():
        raise UserError(
            f"{asked.benchmark}: its data are no longer in {asked.data or 'a known place'}; expected --data DIR"
        )
    return data
