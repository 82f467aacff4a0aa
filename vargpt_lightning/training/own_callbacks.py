"""Callbacks that an experiment adds: Lightning's, or those of other installed packages."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from vargpt_lightning.training.class_paths import arguments_of, class_path_of, not_started
from vargpt_lightning.utils.errors import UserError, meant
from vargpt_lightning.utils.plugins import is_installed

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


def callback_class(entry: dict[str, Any]) -> type[pl.Callback]:
    """Return the class that an entry names; only modules of installed packages are imported."""
    path = class_path_of(entry, KEY)
    module, _, name = path.rpartition(".")
    module = module or PACKAGE
    package = module.partition(".")[0]
    if not is_installed(package):
        raise UserError(f"{KEY}: {path!r}: no installed package has {package!r}; expected a class of an installed one")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever another's code does while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{KEY}: {path!r}: {module} cannot be imported: {reason}") from error
    if not (isinstance(kind, type) and issubclass(kind, pl.Callback)):
        there = [each for each, found in vars(importlib.import_module(module)).items() if _is_callback(found)]
        known = f"there are {', '.join(there)}{meant(name, there)}" if there else f"{module} has none"
        raise UserError(f"{KEY}: {path!r} is no class of lightning.pytorch.Callback; {known}")
    return kind


def _is_callback(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, pl.Callback) and found is not pl.Callback


def _build(entry: dict[str, Any]) -> pl.Callback:
    kind, arguments = callback_class(entry), arguments_of(entry, KEY)
    try:
        return kind(**arguments)
    except Exception as error:  # wrong arguments: each package has its classes
        raise not_started(KEY, entry["class_path"], arguments, error) from error
