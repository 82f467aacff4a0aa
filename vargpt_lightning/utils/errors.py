"""The error that means: something a person can put right; and the name that was meant. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

LISTED = 24  # names in one message


class UserError(ValueError):
    """A mistake in a key, a path, a picture, a shard or a checkpoint.

    Its text names the thing, the value and what was expected; the command line prints the text alone and exits with
    code 2.
    """


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the name that is most like the one given, None where none is like it."""
    import difflib

    known = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=cutoff)
    return known[close[0]] if close else None


def hint(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message about a name that there is not: those that there are, and the nearest one."""
    there = list(names)
    if not there:
        return "there are none"
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    return f"there are {', '.join(there[:LISTED])}{more}{meant(name, there, cutoff)}"


def meant(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message that lists the names already: the nearest one, or nothing."""
    close = nearest(str(name), names, cutoff)
    return f"; did you mean '{close}'?" if close else ""


def near_path(path: Path | str) -> str:
    """Return the end of a message about a path that is not there: the one that was meant, or nothing."""
    close = similar_path(path)
    return f"; did you mean '{close}'?" if close is not None else ""


def near_folder(path: Path | str) -> str:
    """Return `near_path` of a folder where something is missing: nothing when the folder itself is there."""
    return "" if Path(path).exists() else near_path(path)


def similar_path(path: Path | str) -> Path | None:
    """Return a path that is there in place of one that is not: beside it, or in a folder of a similar name.

    A name alone may also be that of a run in `runs`.
    """
    path = Path(path)
    if path.parent.is_dir():
        # The path itself is listed too where it is of the wrong kind, or a link to what is gone.
        alike = [name for name in _names(path.parent, path.suffix) if f"{name}{path.suffix}" != path.name]
        if close := nearest(path.stem, alike):
            return path.parent / f"{close}{path.suffix}"
        if ends := [name for name in _names(path.parent) if Path(name).stem == path.stem and name != path.name]:
            return path.parent / ends[0]
        close = nearest(path.name, _names(Path("runs"))) if len(path.parts) == 1 else None
        return Path("runs") / close if close else None
    close = nearest(path.parent.name, _names(path.parent.parent))
    other = path.parent.with_name(close) / path.name if close else None
    return other if other is not None and other.exists() else None


def _names(folder: Path, suffix: str = "") -> list[str]:
    """The names in a folder that end so, without this end: it would make all of them alike."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix) and not name.startswith(".")]


def install_hint(extra: str) -> str:
    """Return the command that installs an extra of this project, which is on no package index: from a checkout."""
    return f"pip install -e '.[{extra}]' in the project's folder"
