"""What is found by its name: a file with a `NAME` in a package of ours, or an entry point of an installed package.

No list of them is kept, and nothing is imported to list names.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError, hint

if TYPE_CHECKING:  # reading what is installed takes a while; only where a name is looked up
    from importlib.metadata import EntryPoint

_NAME = re.compile(r"^NAME\b.*=", re.MULTILINE)
_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def named_modules(folders: Iterable[str]) -> tuple[str, ...]:
    """The names of the modules with a `NAME` in a package's `__path__`, sorted; none of them is imported."""
    return _named_modules(tuple(folders))


@cache
def _named_modules(folders: tuple[str, ...]) -> tuple[str, ...]:
    files = [file for folder in folders for file in Path(folder).glob("*.py")]
    return tuple(sorted({file.stem for file in files if _NAME.search(file.read_text(encoding="utf-8"))}))


@cache
def announced(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group in all installed packages, by name; none of them is imported."""
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for each in entry_points(group=group):
        found[each.name] = (*found.get(each.name, ()), each)
    return found


def forget() -> None:
    """Look again for files and installed packages when the next name is looked up."""
    for cached in (_named_modules, announced, _imported, _module):
        cached.cache_clear()


@dataclass(frozen=True)
class PluginKind:
    """A kind of thing to which installed packages may add.

    Args:
        what: its name in messages, such as "benchmark".
        group: the group of entry points in which others announce theirs.
        reserved: names that mean something else where one of these is expected.
    """

    what: str
    group: str
    reserved: tuple[str, ...] = ()

    def names(self, own: Iterable[str]) -> tuple[str, ...]:
        """Our own names, then those that installed packages announce; none of them is imported."""
        own = tuple(own)
        return (*own, *sorted(name for name in announced(self.group) if name not in own))

    def entry(self, name: str, own: Iterable[str]) -> EntryPoint | None:
        """Return the entry point of that name, None for one of our own.

        Raises:
            UserError: there is no such name, or several packages have it, or one has ours; names the package.
        """
        own = tuple(own)
        theirs = announced(self.group).get(name, ())
        if not theirs:
            if name in own:
                return None
            raise UserError(f"{self.what}: {name!r}; {hint(name, self.names(own))}")
        taken = name in (*own, *self.reserved)
        if taken or len(theirs) > 1 or not _ALLOWED.fullmatch(name):
            others = " and ".join(called(each) for each in theirs)
            reason = "the name of a built-in one" if taken else "the same name" if len(theirs) > 1 else "this name"
            more = "; uninstall one of them" if len(theirs) > 1 else ", of letters, digits, - and _"
            raise UserError(f"{self.what}: {others} has {reason}, {name!r}; expected a name of its own{more}")
        return theirs[0]

    def module(self, package: str, name: str, own: Iterable[str], needs: type) -> Any:
        """Return the module of that name: a file of our package, or an installed package's.

        Args:
            package: where our own are.
            needs: the Protocol that another's module has to satisfy.

        Raises:
            UserError: as `entry`; or an installed package's cannot be imported, or lacks something.
        """
        entry = self.entry(name, own)
        return importlib.import_module(f"{package}.{name}") if entry is None else _module(self.what, entry, needs)

    def package(self, name: str) -> tuple[str, str] | None:
        """Name and version of the package that announces this name; None where no other package does."""
        theirs = announced(self.group).get(name, ())
        found = theirs[0].dist if len(theirs) == 1 else None
        return None if found is None else (found.name, found.version)

    def imported(self, entry: EntryPoint) -> Any:
        """Return what an entry point names; raises UserError that names its package where it cannot be imported."""
        return _imported(self.what, entry)


def is_installed(package: str) -> bool:
    """Whether an installed package has a top-level module of this name; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    try:  # most are called as their module, and to list the files of all takes seconds
        distribution(package)
    except (PackageNotFoundError, ValueError):
        return package in packages_distributions()
    return True


def package_of(module: str) -> tuple[str, str] | None:
    """Name and version of the installed package that has a module; None where none has. Nothing is imported."""
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    top = module.partition(".")[0]
    try:
        found = distribution(top)
    except (PackageNotFoundError, ValueError):
        names = packages_distributions().get(top)
        if not names:
            return None
        found = distribution(names[0])
    return found.name, found.version


def members(protocol: type) -> tuple[str, ...]:
    """The names that a Protocol asks for, without those that every module has."""
    return tuple(name for name in (*inspect.get_annotations(protocol), *vars(protocol)) if not name.startswith("_"))


@cache
def _imported(what: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever another's code does while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{what} {entry.name!r}: {called(entry)} cannot be imported: {reason}") from error


@cache
def _module(what: str, entry: EntryPoint, needs: type) -> ModuleType:
    module, where = _imported(what, entry), f"{what} {entry.name!r}: {called(entry)}"
    if not isinstance(module, ModuleType):
        raise UserError(f"{where} is no module; expected an entry point such as {entry.name} = {entry.module!r}")
    wanted = members(needs)
    if missing := [name for name in wanted if not hasattr(module, name)]:
        raise UserError(f"{where} lacks {', '.join(missing)}; expected {', '.join(wanted)}")
    functions = [name for name in wanted if inspect.isfunction(vars(needs).get(name))]
    if values := [name for name in functions if not callable(getattr(module, name))]:
        raise UserError(f"{where}: {values[0]} is no function")
    if entry.name != (name := module.NAME):
        raise UserError(f"{where} has the NAME {name!r}; expected the entry point's, {entry.name!r}")
    return module


def called(entry: EntryPoint) -> str:
    """An entry point by its package, for messages: "their-package 1.0 (their_package.module)"."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an installed package"
    return f"{package} ({entry.value})"
