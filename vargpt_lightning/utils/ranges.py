"""The numbers that a key takes, as part of its type: `lr: Annotated[float, Range(0, 100)]`. Imports no torch.

One place says what a type asks for, whether a value fits it, and what is told where it does not; a class that is
`Ranged` holds its own numbers against their types whenever it is made.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from vargpt_lightning.utils.errors import UserError

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}


@dataclass(frozen=True, repr=False)
class Range:
    """Numbers from low to high; `above` leaves low itself out, `below` high. None of them is nan or infinite."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return low and high  # neither is true of nan

    def __repr__(self) -> str:
        low = f"{'above' if self.above else 'from'} {self.low:,}"
        return f"{low}{',' if self.above else ''} to {'below ' if self.below else ''}{self.high:,}"


Size = Annotated[int, Range(1, 2**20)]
"""A width, a side in pixels, heads: how many there are of something that is held in memory at a time."""
Depth = Annotated[int, Range(1, 10_000)]
"""Layers or blocks."""
Rows = Annotated[int, Range(1, 2**24)]
"""Entries of a vocabulary, classes, positions."""
Count = Annotated[int, Range(1, 10**12)]
"""Steps, records, tokens."""
Amount = Annotated[int, Range(0, 10**12)]
"""The same, or none."""
Few = Annotated[int, Range(0, 100_000)]
"""Validations, processes, variants; or none."""
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]
"""A share that is never all: a dropout, a decay."""
Factor = Annotated[float, Range(0, 1_000_000)]
"""What a loss or a learning rate is multiplied by."""
Epsilon = Annotated[float, Range(0, 1, above=True)]
Seconds = Annotated[float, Range(0, 10**9)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass
class Ranged:  # a dataclass itself, else jsonargparse takes those that are made of it for plugins
    """A dataclass whose numbers are held against the ranges of their types when it is made.

    Attributes:
        place: the key of the section, for messages.

    Raises:
        UserError: a number is outside of its range; names the key, the value and what was expected.
    """

    place: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_numbers(self, self.place)


def check_numbers(section: Any, place: str) -> None:
    """Raise UserError for a number of a dataclass that is outside of its range; `place` is the section's key."""
    own: Any = type(section)
    for key, kind in ranged_keys(own).items():
        check(getattr(section, key), kind, f"{place}.{key}" if place else key)


def check(value: Any, kind: Any, where: str) -> None:
    """Raise UserError unless a value fits a type; of a mapping the entry is named."""
    if get_origin(kind) is dict and isinstance(value, Mapping):
        for name, item in value.items():
            check(item, get_args(kind)[1], f"{where}.{name}")
    elif not fits(value, kind):
        raise UserError(f"{where}={value!r}; expected {words(kind)}")


def hints(kind: Any) -> dict[str, Any]:
    """Return a dataclass's keys with their types, ranges included, in the order of its constructor."""
    known = _hints(kind)
    ordered = sorted(fields(kind), key=lambda entry: entry.kw_only is True)
    return {entry.name: known[entry.name] for entry in ordered if entry.init}


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def ranged_keys(kind: Any) -> dict[str, Any]:
    """Return the keys of a dataclass whose types have a range somewhere, with their types."""
    return {key: hint for key, hint in hints(kind).items() if has_range(hint)} if is_dataclass(kind) else {}


def has_range(kind: Any) -> bool:
    """Whether a type has a range somewhere; a section's own keys do not count."""
    return any(isinstance(each, Range) or has_range(each) for each in get_args(kind))


def fits(value: Any, kind: Any) -> bool:
    """Whether a value, as YAML has it or as a class holds it, is of a type and within its range."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any or kind is None:
        return True
    if origin is Annotated:
        ranges = [each for each in inside[1:] if isinstance(each, Range)]
        number = float(value) if isinstance(value, str) and fits(value, inside[0]) else value
        return fits(value, inside[0]) and all(number in each for each in ranges)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inside)
    if origin is Literal:
        return value in inside
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        kinds = inside[:1] * len(value) if origin is list or inside[-1] is ... else inside
        return len(kinds) == len(value) and all(map(fits, value, kinds))
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(item, inside[1]) for item in value.values())
    if kind is float:
        return _is_number(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str) and "\0" not in value  # no path can hold that, and nothing else is meant by it
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # YAML takes 1e-3 for a text
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def words(kind: Any) -> str:
    """What a type asks for, in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([words(inside[0]), *(repr(each) for each in inside[1:] if isinstance(each, Range))])
    if origin in (Union, types.UnionType):
        return " or ".join(words(each) for each in inside)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inside))
    if origin is tuple and inside[-1] is not ...:
        return f"a list of {len(inside)}, each {words(inside[0])}"
    if origin in (list, tuple):
        return f"a list, each {words(inside[0])}"
    if origin is dict:
        return f"names, each with {words(inside[1])}"
    if is_dataclass(kind):
        return f"a section with the keys {', '.join(hints(kind))}"
    return WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise UserError, naming the key, its value and what was expected, unless the condition holds."""
    if not condition:
        raise UserError(f"{key}: got {value!r}, expected {expected}")


def require_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise UserError unless the value is one of the choices."""
    require(value in choices, key, value, "one of " + ", ".join(choices))
