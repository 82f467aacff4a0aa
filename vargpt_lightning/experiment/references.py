"""References such as `${model.language.width}` followed before OmegaConf does, to tell a bad one in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

import yaml

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import check, fits, hints, words
from vargpt_lightning.utils.yaml_text import load_yaml

REFERENCE = re.compile(r"\$\{\s*(\.*)([\w-]+(?:\.[\w-]+|\[\d+\])*)\s*\}")
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env:\s*(\w+)\s*(?:,([^{}]*))?\}")
EXPECTED = "${KEY} with a key of the experiment, such as ${model.language.width}"
Path = tuple[str, ...]
TOP_DEFAULTS = {"seed": 0, "base": None}  # which are no section's


class References:
    """The values of all keys, with what they refer to.

    Args:
        schema: top-level key to type; dataclasses are sections.
        classes: key of a section of class_path and init_args to the class that is asked for.
    """

    def __init__(self, schema: Mapping[str, Any], classes: Mapping[str, type]) -> None:
        self.schema, self.classes = schema, classes
        self.values: dict[Path, Any] = {}

    def add(self, value: Any, path: Path = ()) -> None:
        """Take over a file's tree, or an option's value at its path; later ones win."""
        if isinstance(value, list):  # it takes the place of an earlier one, which may have been longer
            self.values = {each: known for each, known in self.values.items() if each[: len(path)] != path}
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                self.add(item, (*path, str(key)))
        elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) or _refers(item) for item in value):
            for place, item in enumerate(value):
                self.add(item, (*path, str(place)))
        else:
            self.values[path] = value

    def add_options(self, arguments: Sequence[str]) -> None:
        """Take over the options of a command line, which were found to be right."""
        rest = iter(arguments)
        for word in rest:
            option, equals, text = word.partition("=")
            text = text if equals else next(rest, "")
            if option in ("-c", "--config", "--from") or option.endswith(".help") or not option.startswith("--"):
                continue
            path = tuple(option.lstrip("-").rstrip("+").split("."))
            if path[0] in self.classes and len(path) > 1 and path[1] not in ("class_path", "init_args"):
                path = (path[0], "init_args", *path[1:])
            try:
                value = load_yaml(text)
            except yaml.YAMLError:
                value = text
            self.add(text if isinstance(value, Mapping) and "${" in text else value, path)

    def check(self) -> None:
        """Follow all references.

        Raises:
            UserError: one is written otherwise, names a key without a value, leads in a circle, or to a value of
                another type or outside of the range; names the key, the reference and what was expected.
        """
        for path, value in self.values.items():
            if _refers(value):
                kind, found = self._kind(path), self._followed(value, path, ())
                if found is not MISSING and kind is not None and not is_dataclass(kind):
                    self._fits(path, value, found, kind)

    def _fits(self, path: Path, value: str, found: Any, kind: Any) -> None:
        if isinstance(found, Mapping):
            raise UserError(f"{self._name(path)}={value!r}, which is a section; expected {words(kind)}")
        if not fits(found, kind):
            raise UserError(f"{self._name(path)}={value!r}, which is {found!r}; expected {words(kind)}")
        check(found, kind, self._name(path))

    def _followed(self, value: Any, path: Path, before: tuple[Path, ...]) -> Any:
        """What a value comes to; MISSING where that is not known here."""
        if not _refers(value):
            return value
        where = f"{self._name(path)}={value!r}"
        if path in before:
            circle = [self._name(each) for each in (*before[before.index(path) :], path)]
            raise UserError(f"{where}: the references lead in a circle: {', '.join(circle)}")
        if "${" in ENVIRONMENT.sub("", REFERENCE.sub("", value)):
            raise UserError(f"{where}; expected {EXPECTED}")
        for name, default in ENVIRONMENT.findall(value):
            if name not in os.environ and not default:
                raise UserError(f"{where}: there is no environment variable {name}; expected one, or {EXPECTED}")
        parts = [(match, self._target(match, path)) for match in REFERENCE.finditer(value)]
        found = [self._value(target, where, (*before, path)) for _, target in parts]
        if parts and parts[0][0].group() == value:
            return found[0]
        return MISSING

    def _value(self, path: Path, where: str, before: tuple[Path, ...]) -> Any:
        if path in self.values:
            return self._followed(self.values[path], path, before)
        below = {each: value for each, value in self.values.items() if each[: len(path)] == path}
        if below:
            for each in before:
                if each in below:
                    raise UserError(f"{where}: {self._name(path)} holds the reference itself; expected {EXPECTED}")
            return below
        if path[0] not in self.schema:
            raise UserError(f"{where}: {'.'.join(path)} is not a key; expected {EXPECTED}")
        default = TOP_DEFAULTS[path[0]] if path == path[:1] and path[0] in TOP_DEFAULTS else self._default(path)
        if not self._is_there(path) or (default is MISSING and path[0] in self.classes):
            raise UserError(f"{where}: {'.'.join(path)} has no value; expected {EXPECTED}")
        return default

    def _is_there(self, path: Path) -> bool:
        """Whether a key that nothing is given for is one with a default, of an entry of a list that there is."""
        for end, part in enumerate(path, 1):
            if part.isdecimal() and not any(each[:end] == path[:end] for each in self.values):
                return False
        if path[0] in self.classes or path[0] in TOP_DEFAULTS:
            return path[0] in self.classes or len(path) == 1
        above = [kind for kind, _ in self._steps(path)]
        kind = _section(above[-2]) if len(above) == len(path) + 1 and len(path) > 1 else None
        if kind is None:
            return len(path) == 1
        known = {entry.name: entry for entry in fields(kind)}
        entry = known.get(path[-1])
        return entry is not None and (entry.default is not MISSING or entry.default_factory is not MISSING)

    def _target(self, match: re.Match[str], path: Path) -> Path:
        dots, name = match.groups()
        names = tuple(name.replace("]", "").replace("[", ".").split("."))
        if len(dots) > len(path):
            raise UserError(f"{self._name(path)}={match.group()!r} has more dots than keys above; expected {EXPECTED}")
        return (*path[: -len(dots)], *names) if dots else names

    def _steps(self, path: Path) -> Iterator[tuple[Any, str]]:
        """The type above each part of a path, with the part; ends where nothing is known."""
        kind: Any = None
        for place, name in enumerate(path):
            yield kind, name
            kind = self.schema.get(name) if place == 0 else _below(kind, name)
            if path[0] in self.classes and place == 1 and name == "init_args":
                kind = self.classes[path[0]]
            if kind is None and place < len(path) - 1 and not (path[0] in self.classes and place == 0):
                return
        yield kind, ""

    def _kind(self, path: Path) -> Any:
        steps = list(self._steps(path))
        return steps[-1][0] if steps[-1][1] == "" else None

    def _default(self, path: Path) -> Any:
        above = [kind for kind, name in self._steps(path) if name == path[-1]]
        kind = _section(above[-1]) if above else None
        for entry in fields(kind) if kind else ():
            if entry.name == path[-1]:
                made = entry.default_factory() if entry.default_factory is not MISSING else entry.default
                return MISSING if is_dataclass(made) else made
        return MISSING

    def _name(self, path: Path) -> str:
        if path[0] == "stages" and len(path) > 1:
            return ".".join(("stages", str(self.values.get((*path[:2], "name"), path[1])), *path[2:]))
        return ".".join(path)


def _refers(value: Any) -> bool:
    return isinstance(value, str) and "${" in value.replace("\\${", "")


def _section(kind: Any) -> Any:
    """The dataclass that a type is or may be."""
    return next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)


def _below(kind: Any, name: str) -> Any:
    origin, inside = get_origin(kind), get_args(kind)
    if section := _section(kind) if origin not in (list, dict) else None:
        return hints(section).get(name)
    if origin is Annotated:
        return _below(inside[0], name)
    if origin in (list, tuple) and name.isdecimal():
        return inside[0]
    return inside[1] if origin is dict else None
