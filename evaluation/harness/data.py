"""Where benchmarks' data are, and whether they are what they are taken for: told before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.utils.errors import UserError, near_path

if TYPE_CHECKING:
    from vargpt_lightning.evaluation.base.benchmark import Benchmark
    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings


ALL = "all"


OWNER = "lmms-lab"


def chosen_modules(names: str | None, data: Path | None, owner: str | None) -> list[Benchmark]:
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


def chosen_protocols(names: str | None) -> tuple[str, ...]:
    """Return the protocols named with commas between; by default the first."""
    from vargpt_lightning.evaluation.base.benchmark import PROTOCOLS

    given = tuple(dict.fromkeys(name.strip() for name in (names or PROTOCOLS[0]).split(",") if name.strip()))
    return tuple(PROTOCOLS) if given == (ALL,) else given


def find_data(modules: Sequence[Benchmark], data: Path | None, owner: str | None) -> dict[str, Path]:
    """Where the data of each benchmark are: `data`/<name>, `data` itself when it is the only one, or the hub.

    Raises:
        UserError: a benchmark has none, and what there is instead.
    """
    from vargpt_lightning.evaluation.base.benchmark import OfFile
    from vargpt_lightning.evaluation.formats.layouts import resolve

    described = {module.NAME: module.file for module in modules if isinstance(module, OfFile)}
    if data is None and owner is None and len(described) < len(modules):
        raise UserError(_NO_DATA)
    found: dict[str, Path] = {}
    for module in modules:
        if module.NAME in described:  # its file says where its data are
            found[module.NAME] = described[module.NAME]
            continue
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
    modules: Sequence[Benchmark], data: Mapping[str, Path], style: str, protocols: Sequence[str] = ("lmms_eval",)
) -> None:
    """Word and score each benchmark's questions without an answer: what is wrong is told before a model is loaded.

    Raises:
        UserError: the data are of another benchmark, a key is none, the prompts have no such style, or the benchmark
            no such protocol.
    """
    from vargpt_lightning.evaluation.base.benchmark import known_protocols
    from vargpt_lightning.evaluation.harness.score import score_one

    for module in modules:
        known = known_protocols(module)
        for protocol in protocols:
            if protocol not in known:
                raise UserError(f"protocol: {protocol!r}; {module.NAME} has {', '.join(known)}")
        for record in islice(module.load(data[module.NAME], pictures=False), CHECKED):
            module.prompt(record, style)
            score_one(module, "", record, protocols[0])


def check_options(modules: Sequence[Benchmark], settings: BenchmarkSettings) -> None:
    """Refuse options of scoring that none of the benchmarks takes: they would have no effect."""
    from vargpt_lightning.evaluation.harness.select import accepts

    for name in settings.options:
        if not any(accepts(module.score, name) for module in modules):
            titles = ", ".join(module.NAME for module in modules)
            raise UserError(f"--{name}: has no meaning for {titles}; expected a benchmark of lettered choices")


_NO_DATA = "--data DIR is not given; expected a folder with the benchmarks' data, or --hub-owner"


def _folder(module: Benchmark, data: Path) -> Path | None:
    """The benchmark's own folder below the data, named after it or after its mirror."""
    names = [module.NAME, *([module.HUB.repo.rpartition("/")[2]] if module.HUB else [])]
    return next((data / name for name in names if (data / name).exists()), None)


def _listing(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "nothing in it"
