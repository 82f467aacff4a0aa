"""`vargpt evaluate MODEL --benchmarks ...`: a system asked the questions of public benchmarks, scored, and reported.

Several processes share the questions when torchrun starts the command.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.distributed.torchrun import shared_processes
from vargpt_lightning.evaluation.harness.data import ALL, OWNER, check_data, check_options, chosen_modules, find_data
from vargpt_lightning.evaluation.run.benchmark_results import show
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import working

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.distributed.group import Processes
    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings


def add_options(group: Any) -> None:
    """Add the options of `vargpt evaluate MODEL --benchmarks`; all are None where they are not given."""
    group.add_argument(
        "--benchmarks", metavar="NAMES", help="names such as mmbench,pope; all: every benchmark with data"
    )
    add_data_options(group)
    group.add_argument(
        "--limit", type=int, metavar="N", help="ask at most N questions of each benchmark, always the same ones"
    )
    group.add_argument("--batch-size", metavar="N", help="questions per batch; auto halves it when memory runs out")
    group.add_argument("--style", metavar="NAME", help="prompt style: llava (default), plain, or a benchmark's own")
    group.add_argument(
        "--dtype", metavar="NAME", help="precision of the weights, such as bfloat16 (default: the model's own)"
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the model, such as concurrency=8 (endpoint), template=... (transformers)",
    )
    add_scoring_options(group)


def add_data_options(group: Any) -> None:
    """Add where benchmarks' data come from."""
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with a folder for each benchmark, or the data of the only one"
    )
    group.add_argument(
        "--hub-owner", nargs="?", const=OWNER, metavar="NAME", help=f"download the data from the hub ({OWNER})"
    )


def add_scoring_options(group: Any) -> None:
    """Add how outputs are scored, and whether others' results may be written over."""
    group.add_argument(
        "--replace", action="store_true", default=None, help="write over another system's results in the folder"
    )
    group.add_argument(
        "--protocol", metavar="NAMES", help="lmms_eval (default), official, lenient; several with commas between"
    )
    group.add_argument(
        "--guess", choices=["random"], help="choose a random answer if a reply has none; counted and marked"
    )
    group.add_argument(
        "--allow-partial", action="store_true", default=None, help="score incomplete groups; the result is marked"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask, score, print the figures, and write the report."""
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress
    from vargpt_lightning.evaluation.harness.run import ScoringError, run_benchmark
    from vargpt_lightning.evaluation.harness.select import describe
    from vargpt_lightning.evaluation.systems.open import check_system, open_system, runs_here
    from vargpt_lightning.utils.signals import ended_by_signals

    check_system(arguments.run, arguments.stage)
    modules = chosen_modules(arguments.benchmarks, arguments.data, arguments.hub_owner)
    settings = settings_of(arguments)
    check_options(modules, settings)
    data = find_data(modules, arguments.data, arguments.hub_owner)
    check_data(modules, data, settings.style, settings.protocols)
    out = arguments.out or default_out(arguments.run)
    own = arguments.out is None and (Path(arguments.run) / "run.json").is_file()  # a run's own figures are its last
    output_folder(out)
    if arguments.device is not None and runs_here(arguments.run):
        choose(arguments.device)
    results: list[Mapping[str, Any]] = []
    refused: list[str] = []
    with ended_by_signals(), shared_processes() as processes:
        options = _system_options(arguments, processes)
        with working(f"loading {arguments.run}"):
            system = open_system(arguments.run, **options)
        more: dict[str, Any] = {"processes": processes, "facts": describe(system)}
        more["replace_others"] = own or bool(arguments.replace)
        with benchmark_progress(quiet=not processes.first) as progress:
            for module in modules:
                place = data[module.NAME]
                try:
                    results += run_benchmark(system, module, place, out, settings, progress=progress, **more).values()
                except ScoringError as error:  # told at the end: a night's other benchmarks need not wait for it
                    refused.append(str(error))
    if processes.first:
        show(results, out, data, refused)
    return 0


def settings_of(arguments: argparse.Namespace) -> BenchmarkSettings:
    """How to ask and score, from the command line.

    Raises:
        UserError: a value that cannot be.
    """
    from vargpt_lightning.evaluation.harness.run import AUTO, BenchmarkSettings

    size = getattr(arguments, "batch_size", None) or AUTO
    if size != AUTO and not size.isdigit():
        raise UserError(f"--batch-size {size}: expected a number or auto")
    return BenchmarkSettings(
        protocols=protocols_of(arguments.protocol),
        style=arguments.style or "llava",
        limit=arguments.limit,
        batch_size=size if size == AUTO else int(size),
        max_new_tokens=getattr(arguments, "max_tokens", None),
        allow_partial=bool(arguments.allow_partial),
        options={"guess": arguments.guess} if arguments.guess else {},
    )


def protocols_of(names: str | None) -> tuple[str, ...]:
    """The protocols named with commas between; by default the first."""
    from vargpt_lightning.evaluation.base.benchmark import PROTOCOLS

    given = tuple(dict.fromkeys(name.strip() for name in (names or PROTOCOLS[0]).split(",") if name.strip()))
    return tuple(PROTOCOLS) if given == (ALL,) else given


def default_out(model: str) -> Path:
    """RUN/benchmarks for a run's folder, benchmarks/<model> for any other system."""
    from vargpt_lightning.evaluation.base.files import file_stem

    path = Path(model)
    return path / "benchmarks" if (path / "run.json").is_file() else Path("benchmarks") / file_stem(model.strip("/."))


def _system_options(arguments: argparse.Namespace, processes: Processes) -> dict[str, Any]:
    device = arguments.device
    if device is None and processes.world > 1:
        device = _own_device()
    given = {"device": device, "dtype": arguments.dtype, "stage": getattr(arguments, "stage", None)}
    return {name: value for name, value in given.items() if value is not None} | more_options(arguments.option)


def more_options(words: Sequence[str]) -> dict[str, Any]:
    """The values of `--option KEY=VALUE`, numbers and truth values as such.

    Raises:
        UserError: no equals sign.
    """
    import yaml

    from vargpt_lightning.utils.yaml_text import load_yaml

    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--option {word}: expected KEY=VALUE, such as concurrency=8")
        try:
            found[key.strip().replace("-", "_")] = load_yaml(value) if value else ""
        except yaml.YAMLError:
            found[key.strip().replace("-", "_")] = value
    return found


def _own_device() -> str:
    """A GPU for each process of this machine, where there are some."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
