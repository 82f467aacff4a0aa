"""Entries of an experiment that name a class: `class_path`, and `init_args` if need be."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from vargpt_lightning.utils.errors import UserError, meant
from vargpt_lightning.utils.plugins import is_installed


def class_path_of(entry: dict[str, Any], key: str) -> str:
    """Return the class that an entry of the section `key` names.

    Raises:
        UserError: the entry has no class_path, or keys beside it that mean nothing.
    """
    if not set(entry) <= {"class_path", "init_args"} or "class_path" not in entry:
        raise UserError(f"{key}: {entry!r}; expected class_path, and init_args if need be")
    return str(entry["class_path"])


def arguments_of(entry: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an entry's init_args; raises UserError where they are not names with values."""
    arguments = entry.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise UserError(f"{key}: init_args of {entry['class_path']} are {arguments!r}; expected names with values")
    return {str(name): value for name, value in arguments.items()}


def installed_module(entry: dict[str, Any], key: str, package: str = "") -> tuple[str, str]:
    """Return the module and the name of the class that an entry names; nothing is imported.

    Args:
        package: the module of classes that are named without one.

    Raises:
        UserError: as `class_path_of`; or no installed package has the module.
    """
    path = class_path_of(entry, key)
    module, _, name = path.rpartition(".")
    module = module or package
    top = module.partition(".")[0]
    if not is_installed(top):
        raise UserError(f"{key}: {path!r}: no installed package has {top!r}; expected a class of an installed one")
    return module, name


def installed_class(entry: dict[str, Any], key: str, base: type, called: str, package: str = "") -> Any:
    """Return the subclass of `base` that an entry names; only modules of installed packages are imported.

    Args:
        called: what messages call the base.
        package: the module of classes that are named without one.

    Raises:
        UserError: as `installed_module`; or the module cannot be imported, or has no such class.
    """
    module, name = installed_module(entry, key, package)
    path = entry["class_path"]
    try:
        there = vars(importlib.import_module(module))
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever another's code does while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{key}: {path!r}: {module} cannot be imported: {reason}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        names = [each for each, kind in there.items() if _is_below(kind, base)]
        known = f"there are {', '.join(names)}{meant(name, names)}" if names else f"{module} has none"
        raise UserError(f"{key}: {path!r} is no class of {called}; {known}")
    return found


def not_started(key: str, name: str, arguments: Iterable[str], error: Exception, advice: str = "") -> UserError:
    """Return what is told of a class that refuses its arguments: their names, since the values may be secrets."""
    given = ", ".join(arguments) or "no init_args"
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(f"{key}: {name} with {given} does not start: {reason}{advice}")


def _is_below(found: Any, base: type) -> bool:
    return isinstance(found, type) and issubclass(found, base) and found is not base
