"""Callbacks that an experiment adds: Lightning's, those of other installed packages, a stage's watch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from vargpt_lightning.callbacks.forgetting import Forgetting
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.class_paths import arguments_of, installed_class, not_started
from vargpt_lightning.utils.errors import UserError

KEY = "trainer.callbacks"
PACKAGE = "lightning.pytorch.callbacks"


def check_callbacks(entries: Sequence[dict[str, Any]]) -> None:
    """Refuse, before anything is trained, what `build_callbacks` refuses; nothing is made."""
    for entry in entries:
        kind = callback_class(entry)
        try:
            inspect.signature(kind).bind(**arguments_of(entry, KEY))
        except TypeError as error:
            raise UserError(f"{KEY}: {entry['class_path']}: {error}") from error


def build_callbacks(entries: Sequence[dict[str, Any]]) -> list[pl.Callback]:
    """Return new callbacks for a stage.

    Args:
        entries: class_path, a class of lightning.pytorch.callbacks with or without the package's name or one of another
            installed package, and init_args.

    Raises:
        UserError: there is no such class, it is no callback, or it refuses its arguments.
    """
    return [_build(entry) for entry in entries]


def watch_of(stage: Stage, data: StageData, folder: StageFolder) -> list[pl.Callback]:
    """Return what looks at whether a stage forgets, where it asks for it."""
    return [] if stage.watch is None else [Forgetting(stage.watch, lambda: data.watched(stage), folder)]


def callback_class(entry: dict[str, Any]) -> type[pl.Callback]:
    """Return the class that an entry names; only modules of installed packages are imported."""
    kind: type[pl.Callback] = installed_class(entry, KEY, pl.Callback, "lightning.pytorch.Callback", PACKAGE)
    return kind


def _build(entry: dict[str, Any]) -> pl.Callback:
    kind, arguments = callback_class(entry), arguments_of(entry, KEY)
    try:
        return kind(**arguments)
    except Exception as error:  # wrong arguments: each package has its classes
        raise not_started(KEY, entry["class_path"], arguments, error) from error
