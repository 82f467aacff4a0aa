"""An experiment's keys and values held against the constructors, so that a mistake is told in one line.

The parser behind `vargpt fit` finds the same mistakes, in many more words.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin

import yaml

from vargpt_lightning.utils.errors import UserError, meant, nearest
from vargpt_lightning.utils.ranges import check, fits, hints, words
from vargpt_lightning.utils.yaml_text import Refused, load_yaml, told

Schema = Mapping[str, Any]
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
OTHER_OPTIONS = ("config", "from", "help", "print_config")


class ConfigCheck:
    """Checks trees of keys and values, and options of the command line, against a schema of keys and types.

    Args:
        schema: top-level key to type; dataclasses are sections.
        plugins: key of a section of class_path and init_args to the class's base; messages name the subclasses that
            are imported already.

    All methods raise UserError: with the key's path, the value and what was expected, or the nearest key there is.
    """

    def __init__(self, schema: Schema, plugins: Mapping[str, type]) -> None:
        self.schema, self.plugins = schema, plugins
        self.classes: dict[str, type] = {}

    def tree(self, tree: Mapping[str, Any], source: str) -> None:
        """Check the keys and values of one file; `source` stands at the start of a message."""
        try:
            for written, value in tree.items():
                key = str(written).removesuffix("+") if isinstance(value, list) else written  # added to the base's list
                if key in self.plugins:
                    self._plugin(key, value)
                else:
                    self._value(value, self._known(key, self.schema, ""), str(key))
        except UserError as error:
            raise UserError(f"{source}: {error}") from error

    def arguments(self, words: Sequence[str]) -> None:
        """Check the options of a command line and their values."""
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word in ("-h", "--help") or word.startswith("--print_config") or word.split("=")[0].endswith(".help"):
                return  # jsonargparse's own, which show something and end
            option, equals, value = word.partition("=")
            if not option.startswith("-"):
                raise UserError(f"{word!r} is not an option; an experiment is given as -c FILE, a value as --KEY VALUE")
            if not equals:
                if not rest:
                    known = {**self.schema, **dict.fromkeys(OTHER_OPTIONS), **dict.fromkeys(self.plugins)}
                    self._known(option.lstrip("-").rstrip("+").partition(".")[0], known, "--")
                    raise UserError(f"{option}: expected a value after it")
                value = rest.pop(0)
            if option not in ("-c", "--config", "--from"):
                self._option(option.lstrip("-").rstrip("+"), value, appended=option.endswith("+"))

    def _option(self, path: str, text: str, appended: bool) -> None:
        key, _, below = path.partition(".")
        try:
            value = load_yaml(text)
        except Refused as error:
            raise UserError(f"--{path}: {told(error)[1]}") from error
        except yaml.YAMLError:
            value = text
        value = [value] if appended and not isinstance(value, list) else value
        if key in self.plugins:
            self._plugin_option(key, [name for name in below.split(".") if name], text, value)
            return
        kind: Any = self._known(key, {**self.schema, **dict.fromkeys(OTHER_OPTIONS)}, "--")
        kind = self._at(below.split(".") if below else [], kind, f"--{key}")
        if not (is_dataclass(kind) and isinstance(value, str)):  # a section may be given as a file
            self._value(text if fits(text, kind) else value, kind, f"--{path}")

    def _plugin_option(self, key: str, names: list[str], text: str, value: Any) -> None:
        if not names and isinstance(value, dict):
            self._plugin(key, value)
        elif not names or names == ["class_path"]:
            self._plugin(key, {"class_path": text})
        elif key in self.classes:
            names = names[1:] if names[0] == "init_args" else names
            kind = self._at(names, self.classes[key], f"--{key}")
            self._value(text if fits(text, kind) else value, kind, f"--{key}.{'.'.join(names)}")

    def references(self, trees: Iterable[Any]) -> None:
        """Check that every `${key}` in the trees names a key."""
        for tree in trees:
            for name in REFERENCE.findall(yaml.safe_dump(tree)):
                top, _, below = name.partition(".")
                if top not in self.plugins and not name.startswith("."):
                    kind: Any = self._known(top, self.schema, f"${{{name}}}: ")
                    self._at(below.split(".") if below else [], kind, f"${{{name}}}: {top}")

    def _plugin(self, key: str, value: Any) -> None:
        base = self.plugins[key]
        known: list[type] = base.__subclasses__()
        there = [f"{kind.__module__}.{kind.__name__}" for kind in known]
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}; expected class_path (one of {', '.join(there)}) and init_args")
        for name in value:
            if name not in ("class_path", "init_args"):
                raise _unknown(str(name), f"{key}.", ("class_path", "init_args"))
        if "class_path" in value:
            self.classes[key] = _class(value["class_path"], base, f"{key}.class_path", there)
        if key in self.classes and is_dataclass(self.classes[key]):
            self._value(value.get("init_args") or {}, self.classes[key], f"{key}.init_args", complete=False)

    def _known(self, key: Any, keys: Schema, where: str) -> Any:
        if key not in keys:
            raise _unknown(str(key), where, keys)
        return keys[key]

    def _at(self, names: Sequence[str], kind: Any, where: str) -> Any:
        """The type of the key that the names lead to."""
        for name in names:
            if not is_dataclass(kind):
                raise UserError(f"{where} has no keys below it; got {name!r}")
            kind = self._known(name, hints(kind), f"{where}.")
            where = f"{where}.{name}"
        return kind

    def _value(self, value: Any, kind: Any, where: str, complete: bool = True) -> None:
        if isinstance(value, str) and REFERENCE.search(value):
            return
        choices = get_args(kind) if get_origin(kind) is types.UnionType else ()
        sections = [each for each in choices if is_dataclass(each)]
        if is_dataclass(kind):
            self._section(value, kind, where, complete)
        elif len(sections) == 1 and isinstance(value, Mapping):  # a section or nothing
            self._section(value, sections[0], where, complete)
        elif get_origin(kind) is list and isinstance(value, list) and is_dataclass(get_args(kind)[0]):
            for place, item in enumerate(value):
                name = item.get("name") if isinstance(item, Mapping) else None
                self._value(item, get_args(kind)[0], f"{where}.{name or place}")
        elif get_origin(kind) is dict and isinstance(value, Mapping):
            for name, item in value.items():
                self._value(item, get_args(kind)[1], f"{where}.{name}")
        else:
            check(value, kind, where)

    def _section(self, value: Any, kind: Any, where: str, complete: bool) -> None:
        known = hints(kind)
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={value!r}; expected the keys {', '.join(known)}, or some of them")
        for key, item in value.items():
            self._value(item, self._known(key, known, f"{where}."), f"{where}.{key}")
        for entry in fields(kind) if complete else ():
            needed = entry.default is MISSING and entry.default_factory is MISSING
            if needed and entry.name not in value:
                raise UserError(f"{where}.{entry.name} is missing; expected {words(known[entry.name])}")


def _class(path: Any, base: type, where: str, there: Sequence[str]) -> type:
    known = {name.rpartition(".")[2]: name for name in there}
    module, _, name = known.get(str(path), str(path)).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        close = meant(str(path).rpartition(".")[2], known)
        raise UserError(f"{where}={path!r} cannot be imported; there are {', '.join(there)}{close}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{where}={path!r} is no {base.__name__}; there are {', '.join(there)}")
    if inspect.isabstract(found):
        raise UserError(f"{where}={path!r} is abstract; there are {', '.join(there)}")
    return found


def _unknown(key: str, where: str, keys: Iterable[Any]) -> UserError:
    """The error for a key that there is not: the nearest one, the section that has it, or all there are."""
    names = [str(name) for name in keys]
    kinds = keys.items() if isinstance(keys, Mapping) else ()
    sections = [str(name) for name, kind in kinds if is_dataclass(kind) and not inspect.isabstract(kind)]
    inside = [f"{name}.{key}" for name in sections if key in hints(keys[name])]  # type: ignore[index]
    near = inside[0] if inside else nearest(key, names)
    known = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
    return UserError(f"{where}{key} is not a key; {known}")
