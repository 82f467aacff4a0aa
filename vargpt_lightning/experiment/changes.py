"""Changes of an experiment by dotted keys: `stages.NAME.KEY` changes one stage by its name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from vargpt_lightning.experiment.files import Tree
from vargpt_lightning.utils.errors import UserError, hint


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
