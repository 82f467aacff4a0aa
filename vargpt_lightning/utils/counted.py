"""Numbers of things, and times, as they are said: "1 shard", "2 shards", "1:05:00". Imports nothing."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun, in the singular for one; `things` is the plural where it does not end in s."""
    return f"{number:,} {thing if number == 1 else things or plural(thing)}"


def times(number: float) -> str:
    """Return how often something is done: "1 time", "2.5 times"."""
    return f"{number:g} time" if number == 1 else f"{number:g} times"


def plural(thing: str) -> str:
    """Return the regular plural of a noun."""
    if thing.endswith("y") and thing[-2:-1] not in "aeiou":
        return f"{thing[:-1]}ies"
    return f"{thing}es" if thing.endswith(("s", "x", "ch", "sh")) else f"{thing}s"


def duration_text(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
