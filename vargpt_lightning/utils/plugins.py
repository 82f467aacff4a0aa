"""Packages in which a new file with a `NAME` is all that something new takes: no list of them is kept."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError, hint

_NAME = re.compile(r"^NAME\b.*=", re.MULTILINE)


def named_modules(folders: Iterable[str]) -> tuple[str, ...]:
    """The names of the modules with a `NAME` in a package's `__path__`, sorted; none of them is imported."""
    files = [file for folder in folders for file in Path(folder).glob("*.py")]
    return tuple(sorted({file.stem for file in files if _NAME.search(file.read_text(encoding="utf-8"))}))


def module_of(package: str, name: str, names: tuple[str, ...], kind: str) -> Any:
    """Return the package's module of that name.

    Raises:
        UserError: it is none of the names; says which there are.
    """
    if name not in names:
        raise UserError(f"{kind}: {name!r}; {hint(name, names)}")
    return importlib.import_module(f"{package}.{name}")
