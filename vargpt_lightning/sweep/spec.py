"""What a sweep file says, read and checked. Every mistake raises UserError naming the key and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from vargpt_lightning.experiment.files import Tree
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.names import check_name
from vargpt_lightning.utils.ranges import Few, Seed, fits, words
from vargpt_lightning.utils.ranges import Range as Numbers

KEEP = ("all", "best", "figures")
SMALLER_IS_BETTER = ("kid", "fd", "fid", "loss", "seconds", "memory", "error", "perplexity")
DEFAULT_PROGRAM = ("vargpt", "fit")
Finite = Annotated[float, Numbers(-1e300, 1e300)]
MOST_CELLS = 100_000


@dataclass(frozen=True)
class Measure:
    """A metric of a run: its title, where it is found (see measures.py), and which is best: "max" or "min"."""

    name: str
    path: str
    best: str


@dataclass(frozen=True)
class Range:
    """What a sampler chooses from: numbers from low to high, or choices."""

    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole ones."""
        return isinstance(self.low, int) and isinstance(self.high, int) and (self.step or 1) == int(self.step or 1)


@dataclass(frozen=True)
class Pruning:
    """Stop a trial whose `metric` in `stage` falls behind the other trials', as Optuna's `pruner` decides."""

    stage: str
    metric: str
    best: str
    pruner: str = "MedianPruner"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A whole sweep, checked; docs/sweeps.md describes the keys."""

    name: str
    bases: Mapping[str, Path]
    measures: tuple[Measure, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    space: Mapping[str, Range] = field(default_factory=dict)
    trials: int = 0
    sampler: str = "TPESampler"
    sampler_arguments: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    seed_key: str = "seed"
    prune: Pruning | None = None
    keep: str = "all"
    reuse: tuple[str, ...] = ()
    program: tuple[str, ...] = DEFAULT_PROGRAM
    root: str = "sweeps"
    file: str = ""

    @property
    def sampled(self) -> bool:
        """Whether a sampler chooses the values, and not a list of cells."""
        return bool(self.space)

    def points(self) -> list[tuple[dict[str, Any], int]]:
        """Return the values that vary, and the seed, of every cell: the seeds vary fastest.

        Neighbours then differ in what they train from the first stage on, and workers seldom wait for one another.
        """
        axes: dict[str, list[Any]] = {}
        if len(self.bases) > 1:
            axes["base"] = list(self.bases)
        if self.variants:
            axes["variant"] = list(self.variants)
        axes |= {key: list(values) for key, values in self.grid.items()}
        found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        return [(values, seed) for values in found for seed in self.seeds]


def parse_sweep(tree: Tree, file: Path) -> Sweep:
    """Return the sweep that a file's keys and values describe; paths of bases are beside the file."""
    known = (*_SECTIONS, "name", "base", "measure", "overrides", "trials", "keep", "root")
    for key in tree:
        _need(key in known, str(key), tree[key], f"a key among {', '.join(sorted(known))}")
    parts: dict[str, Any] = {name: read(tree.get(name)) for name, read in _SECTIONS.items() if name in tree}
    sampler, seeds = parts.pop("sampler", None), parts.pop("seeds", None)
    if sampler:
        parts["sampler"], parts["sampler_arguments"] = sampler
    if seeds:
        parts["seed_key"], parts["seeds"] = seeds
    name, keep, trials = tree.get("name", file.stem), tree.get("keep", "all"), tree.get("trials", 0)
    _need(isinstance(name, str), "name", name, "a folder's name")
    check_name(name, "name", "a folder's name")
    _need(keep in KEEP, "keep", keep, f"one of {', '.join(KEEP)}")
    _need(fits(trials, Few), "trials", trials, words(Few))
    sweep = Sweep(
        name=name,
        bases=_bases(tree.get("base"), file),
        measures=_measures(tree.get("measure")),
        overrides=_mapping("overrides", tree.get("overrides")),
        trials=trials,
        keep=keep,
        root=str(tree.get("root", "sweeps")),
        file=str(file.resolve()),
        **parts,
    )
    _check_together(sweep)
    return sweep


def _check_together(sweep: Sweep) -> None:
    if sweep.sampled:
        _need(not sweep.grid and not sweep.variants, "space", "...", "no grid and no variants beside it")
        _need(len(sweep.bases) == 1, "base", list(sweep.bases), "one base where a sampler chooses")
        _need(len(sweep.seeds) == 1, "seeds", list(sweep.seeds), "one seed where a sampler chooses")
        _need(sweep.trials > 0, "trials", sweep.trials, "how many trials the sampler is to choose, 1 or more")
    else:
        _need(not sweep.trials, "trials", sweep.trials, "none without a space: a grid's cells are counted already")
    cells = prod([len(sweep.bases), max(1, len(sweep.variants)), len(sweep.seeds), *map(len, sweep.grid.values())])
    _need(cells <= MOST_CELLS, "grid", f"{cells} cells", f"at most {MOST_CELLS}")
    keys = [*sweep.grid, *sweep.space, *(key for each in sweep.variants.values() for key in each), *sweep.overrides]
    for key in keys:
        _need(key != sweep.seed_key, key, "...", "the key that `seeds` sets only there")
        _need(key.split(".")[0] not in ("run", "base"), key, "...", "no key of the run's place: each trial has its own")


def _bases(value: Any, file: Path) -> dict[str, Path]:
    given: Any = [value] if isinstance(value, str) else value
    if isinstance(given, list) and given and all(isinstance(item, str) for item in given):
        given = {Path(item).stem: item for item in given}
        _need(
            len(given) == len(value if isinstance(value, list) else [value]), "base", value, "files of distinct names"
        )
    _need(isinstance(given, dict) and bool(given), "base", value, "an experiment file, a list, or names with files")
    found = {}
    for name, item in given.items():
        path = (file.parent / str(item)).resolve()
        _need(path.is_file(), "base", item, f"an experiment file beside the sweep file; there is no {path}")
        found[str(name)] = path
    return found


def _measures(value: Any) -> tuple[Measure, ...]:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = {item: None for item in value}
    _need(isinstance(value, dict) and bool(value), "measure", value, "at least one metric; the first one is the aim")
    found = []
    for name, entry in value.items():
        entry = entry if isinstance(entry, dict) else {"best": entry}
        _need(set(entry) <= {"path", "best"}, f"measure.{name}", entry, "the keys path and best")
        path, best = str(entry.get("path", name)), entry.get("best") or guess_best(str(entry.get("path", name)))
        _need(best in ("max", "min"), f"measure.{name}", best, "max or min")
        found.append(Measure(str(name), path, best))
    return tuple(found)


def guess_best(path: str) -> str:
    """Return "min" for what is known to be better when it is small, else "max"."""
    words = path.lower().replace("/", ".").replace("_", ".").replace(":", ".").split(".")
    return "min" if any(word in words for word in SMALLER_IS_BETTER) else "max"


def _mapping(key: str, value: Any) -> dict[str, Any]:
    value = {} if value is None else value
    _need(isinstance(value, dict), key, value, "dotted keys with values")
    return {str(name): item for name, item in value.items()}


def _grid(value: Any) -> dict[str, tuple[Any, ...]]:
    found = {}
    for key, values in _mapping("grid", value).items():
        _need(isinstance(values, list) and bool(values), f"grid.{key}", values, "a list of values")
        _need(len(values) == len({repr(item) for item in values}), f"grid.{key}", values, "each value once")
        found[key] = tuple(values)
    return found


def _variants(value: Any) -> dict[str, dict[str, Any]]:
    return {name: _mapping(f"variants.{name}", changes) for name, changes in _mapping("variants", value).items()}


def _space(value: Any) -> dict[str, Range]:
    found = {}
    for key, entry in _mapping("space", value).items():
        where = f"space.{key}"
        _need(isinstance(entry, dict), where, entry, "low and high, or choices")
        if "choices" in entry:
            _need(set(entry) == {"choices"} and bool(entry["choices"]), where, entry, "choices alone, at least one")
            found[key] = Range(choices=tuple(entry["choices"]))
            continue
        _need({"low", "high"} <= set(entry) <= {"low", "high", "step", "log"}, where, entry, "low, high; step or log")
        numbers = [entry["low"], entry["high"], entry.get("step", 1)]
        fine = all(fits(number, Finite) and not isinstance(number, str) for number in numbers)
        fine = fine and numbers[0] < numbers[1] and numbers[2] > 0 and not (entry.get("log") and numbers[0] <= 0)
        _need(fine, where, entry, "numbers, low below high, above 0 with log; write 1.0e-4 for a small one")
        _need(not (entry.get("log") and "step" in entry), where, entry, "step or log, not both")
        found[key] = Range(**entry)
    return found


def _seeds(value: Any) -> tuple[str, tuple[int, ...]]:
    key = "seed"
    if isinstance(value, dict):
        _need(set(value) == {"key", "values"}, "seeds", value, "a list, or key and values")
        key, value = str(value["key"]), value["values"]
    value = list(range(value)) if fits(value, Few) else value
    fine = isinstance(value, list) and bool(value) and all(fits(seed, Seed) for seed in value)
    _need(fine and len(set(value)) == len(value), "seeds", value, "how many, or a list of distinct whole numbers")
    return key, tuple(value)


def _sampler(value: Any) -> tuple[str, dict[str, Any]]:
    entry = {"name": value} if isinstance(value, str) else value
    _need(isinstance(entry, dict) and isinstance(entry.get("name"), str), "sampler", value, "a name of optuna.samplers")
    return entry["name"], {key: item for key, item in entry.items() if key != "name"}


def _prune(value: Any) -> Pruning | None:
    if value is None:
        return None
    keys = {"stage", "metric", "best", "pruner", "arguments"}
    fine = isinstance(value, dict) and {"stage", "metric"} <= set(value) <= keys
    _need(fine, "prune", value, "stage and metric; best, pruner and arguments if need be")
    return Pruning(**{"best": guess_best(value["metric"]), **value})


def _texts(value: Any) -> tuple[str, ...]:
    value = [value] if isinstance(value, str) else value
    _need(isinstance(value, list) and all(isinstance(item, str) for item in value), "reuse, program", value, "texts")
    return tuple(value)


_SECTIONS: dict[str, Callable[[Any], Any]] = {
    "grid": _grid,
    "variants": _variants,
    "space": _space,
    "seeds": _seeds,
    "sampler": _sampler,
    "prune": _prune,
    "reuse": _texts,
    "program": _texts,
}


def _need(fine: bool, key: str, value: Any, expected: str) -> None:
    if not fine:
        raise UserError(f"{key}={value!r}; expected {expected}")
