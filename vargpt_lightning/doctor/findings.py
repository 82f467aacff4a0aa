"""A check and what it found: fine, at fault, or not to be had on this machine. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vargpt_lightning.utils.progress import Step, working

Status = Literal["ok", "note", "not here", "failed"]


class Fault(Exception):
    """What a check found is wrong: the text says what, and what was expected."""


class NotHere(Exception):
    """A check has no meaning on this machine: the text says why."""


class Noteworthy(str):
    """What a check says when all works, and somebody should know something."""


class Check(NamedTuple):
    """`run` returns what was found in words, or raises `Fault` or `NotHere`; anything else it raises is a fault too."""

    part: str
    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """What a check found, in `seconds`."""

    part: str
    name: str
    status: Status
    said: str
    seconds: float = 0.0


def examine(check: Check) -> Finding:
    """Run one check."""
    begin = time.perf_counter()
    status, said = _outcome(check)
    return Finding(check.part, check.name, status, said, time.perf_counter() - begin)


def examine_all(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks one after the other, with a line that says which."""
    step: Step
    with working("looking at this machine") as step:
        for check in checks:
            step.text = f"{check.part}: {check.name}"
            yield examine(check)


def _outcome(check: Check) -> tuple[Status, str]:
    try:
        said = check.run()
    except Fault as fault:
        return "failed", one_line(fault)
    except NotHere as reason:
        return "not here", one_line(reason)
    except Exception as error:  # a kernel may raise anything
        return "failed", f"{type(error).__name__}: {one_line(error)}"
    return ("note" if isinstance(said, Noteworthy) else "ok"), said


def one_line(error: object, most: int = 400) -> str:
    """The text of an error on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]} ..."
