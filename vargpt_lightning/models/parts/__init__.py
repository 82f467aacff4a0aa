"""Parts of a sampler, one file each: guidance, diversity, speed. A new file with a `NAME` is all that a part takes.

What a part is says `base`. It sees a drawing through its hooks alone: what runs the models belongs in
`models.generation`. An installed package adds its own by entry points of the group `vargpt_lightning.sampler_parts`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any, Literal, get_args, get_origin

from vargpt_lightning.models.parts.base import Facts, Part, PartModule
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.plugins import PluginKind, named_modules
from vargpt_lightning.utils.ranges import check, hints

KIND = PluginKind("part of a sampler", "vargpt_lightning.sampler_parts")
PLACE = "parts"
Given = Mapping[str, Mapping[str, Any]]
"""Parts as settings have them: names with their arguments."""


def names() -> tuple[str, ...]:
    """The names of all parts there are, ours before others'; none of them is imported."""
    return KIND.names(named_modules(__path__))


def get(name: str) -> PartModule:
    """Return a part's module by its name.

    Raises:
        UserError: there is no such part, or an installed package's cannot be used.
    """
    module: PartModule = KIND.module(__name__, name, named_modules(__path__), PartModule)
    return module


def checked(given: Any) -> dict[str, dict[str, Any]]:
    """Return parts as settings keep them: names with the arguments that are given, none of them wrong.

    Raises:
        UserError: an unknown part or argument (with the nearest name), a value out of its range, or parts that
            exclude each other.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{PLACE}: got {given!r}, expected names of parts, each with its arguments")
    found = {str(name): _arguments(str(name), value) for name, value in given.items()}
    made = {part.name: part for part in made_of(found)}
    return {name: {key: getattr(made[name], key) for key in arguments} for name, arguments in found.items()}


def made_of(given: Given) -> list[Part]:
    """Return the parts of settings, in the order in which their hooks are called.

    Raises:
        UserError: as `checked`.
    """
    classes = {name: get(name).PART for name in given}
    made = [_made(name, kind, given[name]) for name, kind in classes.items()]
    for one, two in combinations(made, 2):
        if two.name in one.excludes or one.name in two.excludes:
            raise UserError(f"{PLACE}: got {one.name} and {two.name}, expected one of them: they exclude each other")
    return sorted(made, key=lambda part: (part.rank, part.name))


def check_parts(given: Given, facts: Facts) -> None:
    """Make sure that parts fit a model.

    Raises:
        UserError: one does not, such as a list of another length than there are scales.
    """
    for part in made_of(given):
        if facts.bits and (part.inside or part.indices_alone):
            raise UserError(f"{PLACE}.{part.name}: the model draws bits; this part is for models that draw indices")
        part.check(facts)


def idle_parts(given: Given, facts: Facts) -> dict[str, str]:
    """Return the parts that change nothing on a model, with the reason why."""
    return {part.name: reason for part in made_of(given) if (reason := part.idle(facts))}


def part_of(text: str) -> tuple[str, dict[str, Any]]:
    """Read a part from the words of a command line: NAME, or NAME KEY=VALUE KEY=VALUE, values as in YAML.

    A value with spaces stands in quotes: negative prompt="Please draw nothing."

    Raises:
        UserError: a word is no KEY=VALUE, or a quote is not closed.
    """
    import yaml

    from vargpt_lightning.utils.yaml_text import load_yaml

    try:
        name, *words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"parts: got {text!r} ({error}), expected quotes in pairs") from error
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UserError(f"{name}: got {word!r}, expected KEY=VALUE, such as stop=3")
        try:
            arguments[key] = load_yaml(value) if value else ""
        except yaml.YAMLError:
            arguments[key] = value
    return name, arguments


def parts_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read parts as `part_of` does, and check them.

    Raises:
        UserError: as `part_of` and `checked`, or a part is named twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in filter(str.strip, texts):
        name, arguments = part_of(text)
        if name in found:
            raise UserError(f"{name}: got it twice, expected each part once")
        found[name] = arguments
    return checked(found)


def part_lines(given: Given) -> str:
    """Return parts as `parts_of` reads them, one a line."""
    return "\n".join(
        " ".join([name, *(_word(key, value) for key, value in each.items())]) for name, each in given.items()
    )


def _word(key: str, value: Any) -> str:
    word = f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
    return shlex.quote(word) if set(word) & set(" \t'\"\\") else word


def _arguments(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"{PLACE}.{name}: got {value!r}, expected its arguments, such as {{}}")
    return {str(key): item for key, item in (value or {}).items()}


def _made(name: str, kind: Any, given: Mapping[str, Any]) -> Part:
    known = [entry.name for entry in fields(kind)]
    for key in given:
        if key not in known:
            raise UserError(f"{PLACE}.{name}.{key} is no argument; {hint(key, known)}")
    types = hints(kind)
    for key, value in given.items():
        check(value, types[key], f"{PLACE}.{name}.{key}")
    try:
        made: Part = kind(**{key: _number(value, types[key]) for key, value in given.items()})
    except TypeError as error:
        needed = [entry.name for entry in fields(kind) if entry.name not in given]
        raise UserError(f"{PLACE}.{name}: expected {', '.join(needed)} too") from error
    return made


def _number(value: Any, kind: Any) -> Any:
    """A value of a type; YAML takes 1e-3 for a text, which here is a number."""
    if isinstance(value, (list, tuple)):
        inside = next((get_args(each)[0] for each in (kind, *get_args(kind)) if get_origin(each) is list), Any)
        return [_number(item, inside) for item in value]
    texts = kind is str or str in get_args(kind) or get_origin(kind) is Literal
    return float(value) if isinstance(value, str) and not texts else value
