"""`vargpt evaluate MODEL --benchmarks ...`: a system asked the questions of public benchmarks, scored, and reported.

Several processes share the questions when torchrun starts the command.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands.benchmark_results import show
from vargpt_lightning.commands.paths import output_folder
from vargpt_lightning.commands.progress import working
from vargpt_lightning.devices import choose
from vargpt_lightning.errors import UserError, near_path

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.evaluation.benchmark_runner import BenchmarkSettings
    from vargpt_lightning.evaluation.processes import Processes

ALL = "all"
OWNER = "lmms-lab"


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
    from vargpt_lightning.commands.fit import ended_by_signals
    from vargpt_lightning.commands.systems import check_system, open_system, runs_here
    from vargpt_lightning.evaluation.benchmark_asked import check_free, describe
    from vargpt_lightning.evaluation.benchmark_progress import benchmark_progress
    from vargpt_lightning.evaluation.benchmark_runner import ScoringError, asked_of, run_benchmark

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
        for module in [] if more["replace_others"] else modules:  # all of them before the first is asked, for hours
            check_free(out / module.NAME, asked_of(module, settings, more["facts"]))
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


def chosen_modules(names: str | None, data: Path | None, owner: str | None) -> list[ModuleType]:
    """The modules of the benchmarks named, in their order; "all" are those that have data.

    Raises:
        UserError: an unknown name, no name, or none of them has data.
    """
    from vargpt_lightning.evaluation import benchmarks

    given = [name.strip() for name in (names or "").split(",") if name.strip()]
    if not given:
        raise UserError(f"--benchmarks: {names!r}; expected all, or some of {', '.join(benchmarks.names())}")
    if given != [ALL]:
        return [benchmarks.get(name) for name in dict.fromkeys(given)]
    if data is None and owner is None:
        raise UserError(_NO_DATA)
    every = [benchmarks.get(name) for name in benchmarks.names()]
    there = [module for module in every if (_folder(module, data) if data else module.HUB) is not None]
    left = [module.NAME for module in every if module not in there]
    if not there:
        raise UserError(f"--data {data}: expected folders named {', '.join(left)}; there is {_listing(data)}")
    if left:
        print(f"left out, because there are no data: {', '.join(left)}", flush=True)
    return there


def find_data(modules: Sequence[ModuleType], data: Path | None, owner: str | None) -> dict[str, Path]:
    """Where the data of each benchmark are: `data`/<name>, `data` itself when it is the only one, or the hub.

    Raises:
        UserError: a benchmark has none, and what there is instead.
    """
    from vargpt_lightning.evaluation.benchmarks.layouts import resolve

    if data is None and owner is None:
        raise UserError(_NO_DATA)
    found: dict[str, Path] = {}
    for module in modules:
        if data is None:
            if module.HUB is None:
                raise UserError(f"{module.NAME}: has no data on the hub; expected --data DIR")
            found[module.NAME] = resolve(None, module.HUB, owner=owner or OWNER)
            continue
        folder = _folder(module, data)
        if folder is None and len(modules) > 1:
            raise UserError(f"--data {data}: expected a folder named {module.NAME}; there is {_listing(data)}")
        found[module.NAME] = folder or data
        if not found[module.NAME].exists():
            raise UserError(f"--data {data}: there is no such folder{near_path(data)}")
    return found


CHECKED = 20_000  # questions of a benchmark that are looked at beforehand


def check_data(
    modules: Sequence[ModuleType], data: Mapping[str, Path], style: str, protocols: Sequence[str] = ("lmms_eval",)
) -> None:
    """Word and score each benchmark's questions without an answer: what is wrong is told before a model is loaded.

    Raises:
        UserError: the data are of another benchmark, a key is none, the prompts have no such style, or the benchmark
            no such protocol.
    """
    from vargpt_lightning.evaluation.benchmark_scoring import score_one
    from vargpt_lightning.evaluation.benchmarks.base import PROTOCOLS

    for module in modules:
        known = getattr(module, "KNOWN", PROTOCOLS)
        for protocol in protocols:
            if protocol not in known:
                raise UserError(f"protocol: {protocol!r}; {module.NAME} has {', '.join(known)}")
        for record in islice(module.load(data[module.NAME], pictures=False), CHECKED):
            module.prompt(record, style)
            score_one(module, "", record, protocols[0])


def check_options(modules: Sequence[ModuleType], settings: BenchmarkSettings) -> None:
    """Refuse options of scoring that none of the benchmarks takes: they would have no effect."""
    from vargpt_lightning.evaluation.benchmark_asked import accepts

    for name in settings.options:
        if not any(accepts(module.score, name) for module in modules):
            titles = ", ".join(module.NAME for module in modules)
            raise UserError(f"--{name}: has no meaning for {titles}; expected a benchmark of lettered choices")


_NO_DATA = "--data DIR is not given; expected a folder with the benchmarks' data, or --hub-owner"


def _folder(module: ModuleType, data: Path) -> Path | None:
    """The benchmark's own folder below the data, named after it or after its mirror."""
    names = [module.NAME, *([module.HUB.repo.rpartition("/")[2]] if module.HUB else [])]
    return next((data / name for name in names if (data / name).exists()), None)


def _listing(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "nothing in it"


def settings_of(arguments: argparse.Namespace) -> BenchmarkSettings:
    """How to ask and score, from the command line.

    Raises:
        UserError: a value that cannot be.
    """
    from vargpt_lightning.evaluation.benchmark_runner import AUTO, BenchmarkSettings

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
    from vargpt_lightning.evaluation.benchmarks.base import PROTOCOLS

    given = tuple(dict.fromkeys(name.strip() for name in (names or PROTOCOLS[0]).split(",") if name.strip()))
    return tuple(PROTOCOLS) if given == (ALL,) else given


def default_out(model: str) -> Path:
    """RUN/benchmarks for a run's folder, benchmarks/<model> for any other system."""
    from vargpt_lightning.evaluation.files import file_stem

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

    from vargpt_lightning.yaml_text import load_yaml

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


@contextmanager
def shared_processes() -> Iterator[Processes]:
    """This process among those that torchrun started; alone where it did not."""
    from vargpt_lightning.evaluation.processes import Processes

    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield Processes()
        return
    from datetime import timedelta

    import torch.distributed as group

    if group.is_initialized():  # by a caller, who ends it too
        yield Processes.from_environment()
        return
    # nothing but a barrier travels: gloo does, on GPUs too; a slow share may keep the others waiting for long
    group.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Processes.from_environment()
    finally:
        group.destroy_process_group()
