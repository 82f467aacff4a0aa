"""Which installed packages a stage's code comes from, with their versions: noted beside its hash, and no part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vargpt_lightning.models.vision import KIND as TOWERS
from vargpt_lightning.recipe.heads import KIND as HEADS
from vargpt_lightning.utils.plugins import package_of

if TYPE_CHECKING:
    from vargpt_lightning.experiment.schema import Experiment


def packages_of(experiment: Experiment, index: int) -> dict[str, str]:
    """Return name to version of the packages that a stage's objective, the tower and the source of data come from.

    What is ours is left out.
    """
    stage = experiment.stages[index]
    modules = [type(experiment.data).__module__]
    if stage.objective is not None:
        modules.append(str(stage.objective["class_path"]))
    found = [package_of(module) for module in modules if not module.startswith("vargpt_lightning.")]
    found += [
        HEADS.package(stage.head) if stage.objective is None else None,
        TOWERS.package(experiment.model.vision.kind),
    ]
    return dict(sorted(each for each in found if each is not None))


def changed_packages(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say with which other versions a stage was trained; nothing where these are the same, or were not recorded."""
    changed = [
        f"{name} {version} (now {now[name]})"
        for name, version in before.items()
        if name in now and now[name] != version
    ]
    return f"was trained with {', '.join(changed)}" if changed else ""
