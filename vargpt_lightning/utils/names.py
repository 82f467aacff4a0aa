"""Names that are checked before anything is done: of runs, stages, sweeps, corpora and devices. Imports no torch."""

from __future__ import annotations

import re

from vargpt_lightning.utils.errors import UserError, nearest

LONGEST = (
    150  # bytes; file systems take 255, and what is written puts a number, an ending or a process before and behind
)


def check_name(name: str, key: str, expected: str = "a name") -> None:
    """Refuse what cannot be the name of one file or folder, or would be another place than it says.

    Raises:
        UserError: an empty or too long name, one with a slash or a character that cannot be shown, one that begins
            with a dot (`..` leaves the folder, others are hidden from `vargpt runs`) or ends in spaces.
    """
    size = len(name.encode(errors="replace"))
    if not name:
        wrong = "that is not empty"
    elif name != name.strip():
        wrong = "without spaces around it"
    elif size > LONGEST:
        name, wrong = f"{name[:40]}...", f"of at most {LONGEST} bytes, this one has {size}"
    elif not name.isprintable():
        wrong = "of characters that can be shown"
    elif "/" in name or "\\" in name:
        wrong = "without slashes"
    elif name.startswith("."):
        wrong = "that does not begin with a dot"
    else:
        return
    raise UserError(f"{key}={name!r}; expected {expected} {wrong}")


def check_path(name: str, key: str) -> None:
    """Refuse what would not be a folder below the one it is looked for in: `group/run` is one, `../run` is not."""
    for part in name.split("/"):
        check_name(part, key if part == name else f"{key}={name[:80]!r}: part", "a folder's name")


DEVICES = ("cpu", "cuda", "mps", "xpu")


DEVICE_EXPECTED = "expected cpu, cuda, cuda:N, mps or xpu"


def check_device(name: str) -> str:
    """Return a device's name when it is one; says nothing about whether the machine has it.

    Raises:
        UserError: it is none, with the nearest one.
    """
    parts = re.fullmatch(r"([a-z]+)(?::([0-9]{1,4}))?", name)
    if parts is None or parts[1] not in DEVICES:
        close = nearest(name.partition(":")[0], DEVICES)
        raise UserError(f"{name!r} is no device; {DEVICE_EXPECTED}" + (f"; did you mean '{close}'?" if close else ""))
    return name
