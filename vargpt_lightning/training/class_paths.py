"""Entries of an experiment that name a class: `class_path`, and `init_args` if need be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vargpt_lightning.utils.errors import UserError


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


def not_started(key: str, name: str, arguments: Iterable[str], error: Exception, advice: str = "") -> UserError:
    """Return what is told of a class that refuses its arguments: their names, since the values may be secrets."""
    given = ", ".join(arguments) or "no init_args"
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(f"{key}: {name} with {given} does not start: {reason}{advice}")
