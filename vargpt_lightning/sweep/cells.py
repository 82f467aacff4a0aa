"""The experiment of a cell: its base with the sweep's and the cell's changes, as a file that `vargpt fit` takes.

A change is a dotted key. `stages.NAME.KEY` changes one stage of the base by its name, and `stages.NAME: null` leaves
the stage out; a change below `data.init_args` keeps the base's class.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.errors import UserError, hint
from vargpt_lightning.experiment_files import Tree, chain
from vargpt_lightning.results import write_bytes
from vargpt_lightning.sweep.spec import Sweep


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Attributes:
        values: what varies in the sweep, and its value here.
        seed: of this repetition.
        tree: the experiment's file, its base left out.
        bases: name and content of the file that it starts from, behind those that this one starts from.
        key: hash of all that the experiment says; the same key is the same trial.
        changes: what the cell changes of the base, by dotted key, the seed and what all cells change left out.
    """

    values: dict[str, Any]
    seed: int
    tree: Tree
    bases: list[tuple[str, Tree]]
    key: str
    changes: dict[str, Any]

    @property
    def slug(self) -> str:
        """A short name for folders, such as `cfg1.5-top_k900-seed0`."""
        parts = [
            str(value) if key in ("base", "variant") else f"{key.rpartition('.')[2]}{_short(value)}"
            for key, value in self.values.items()
        ]
        text = re.sub(r"[^\w.+-]+", "_", "-".join([*parts, f"seed{self.seed}"])).lstrip(".")
        short = text.encode()[:80].decode(errors="ignore")  # a name of a file is as long as its bytes
        return text if short == text else f"{short[:71]}-{self.key[:8]}"


def make_cell(sweep: Sweep, values: Mapping[str, Any], seed: int) -> Cell:
    """Return the cell of some values.

    Raises:
        UserError: a change of a stage that the base has not, or below a value that has no keys.
    """
    base = sweep.bases[values.get("base", next(iter(sweep.bases)))]
    changes = dict(sweep.variants.get(values.get("variant", ""), {}))
    changes |= {key: value for key, value in values.items() if key not in ("base", "variant")}
    bases = [(path.stem, {key: part for key, part in tree.items() if key != "base"}) for path, tree in chain(base)]
    trees = [tree for _, tree in bases]
    tree = changed(trees, {**sweep.overrides, **changes, sweep.seed_key: seed})
    key = _digest([[{name: part[name] for name in part if name != "run"} for part in trees], tree])
    return Cell(dict(values), seed, tree, bases, key, changes)


def write_cell(cell: Cell, file: Path, title: str) -> None:
    """Write a cell's experiment file, and copies of its bases in a folder beside: they may change before it is run."""
    below = ""
    for name, tree in cell.bases:
        copied = file.parent / "bases" / f"{name}-{_digest([below, tree])}.yaml"
        if not copied.is_file():
            _write(copied, f"a copy of {name}.yaml", {**({"base": below} if below else {}), **tree})
        below = copied.name
    _write(file, title, {"base": f"bases/{below}", **cell.tree})


def _write(file: Path, title: str, tree: Tree) -> None:
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    write_bytes(file, f"# {title}\n{text}".encode())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def changed(trees: list[Tree], changes: Mapping[str, Any]) -> Tree:
    """Return what a file on top of others must hold so that all changes are made."""
    tree: Tree = {}
    stages = _stages(trees)
    for key, value in changes.items():
        first, *names = key.split(".")
        if first == "stages" and names:
            stages = _change_stage(stages, names, value, key)
            tree["stages"] = stages
        else:
            _set(tree, [first, *names], value, key)
    data, before = tree.get("data"), _last(trees, "data")
    if isinstance(data, dict) and "class_path" not in data and isinstance(before, dict):
        tree["data"] = {"class_path": before.get("class_path"), **data}
    return tree


def changed_stages(trees: list[Tree], changes: Mapping[str, Any]) -> list[Tree]:
    """Return the stages of files one after the other with changes such as `stages.base.steps` made; all are of stages.

    Raises:
        UserError: there is no such stage, or the change is below a value that has no keys.
    """
    stages = _stages(trees)
    for key, value in changes.items():
        stages = _change_stage(stages, key.split(".")[1:], value, key)
    return stages


def _stages(trees: list[Tree]) -> list[Tree]:
    """The stages that files one after the other make: `stages` anew, `stages+` behind those before."""
    stages: list[Tree] = []
    for tree in trees:
        stages = [*(stages if tree.get("stages") is None else tree["stages"]), *(tree.get("stages+") or [])]
    return copy.deepcopy(stages)


def _last(trees: list[Tree], key: str) -> Any:
    found = [tree[key] for tree in trees if tree.get(key) is not None]
    return copy.deepcopy(found[-1]) if found else []


def _change_stage(stages: list[Tree], names: list[str], value: Any, key: str) -> list[Tree]:
    there = [str(stage.get("name")) for stage in stages]
    if names[0] not in there:
        raise UserError(f"{key}: the base has no stage {names[0]!r}; {hint(names[0], there)}")
    place = there.index(names[0])
    if len(names) == 1:
        if value is not None:
            raise UserError(f"{key}={value!r}; expected null, which leaves the stage out, or a key of the stage")
        return stages[:place] + stages[place + 1 :]
    _set(stages[place], names[1:], copy.deepcopy(value), key)
    if names[1] in ("steps", "epochs") and value is not None:  # a stage has one of the two
        stages[place].pop("epochs" if names[1] == "steps" else "steps", None)
    return stages


def _set(tree: Tree, names: list[str], value: Any, key: str) -> None:
    for name in names[:-1]:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            raise UserError(f"{key}: {name} is {below!r} and has no keys below it")
        tree = below
    tree[names[-1]] = value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
