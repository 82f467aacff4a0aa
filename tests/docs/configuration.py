"""Writes docs/configuration.md: every key of an experiment, from the constructors' signatures and docstrings.

`python -m tests.docs.configuration` writes the page; a test fails while the page is not what this would write.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from vargpt_lightning.data.corpora import LoaderSettings, OpenMoji, Packed, Scenes
from vargpt_lightning.experiment.schema import SECTIONS
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.settings import PRESETS, V1_1, Settings
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.ranges import Range

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration: every key of an experiment

An experiment is one YAML file. Every key is also an option of `vargpt fit`: `--model.decoder.depth 6`. Unknown keys and
values of a wrong type or out of range are refused before anything is written, and the most similar key is suggested.

- `base: FILE` starts from another experiment file (relative to this one) and overrides its values. A list replaces the
  base's list; with a plus, `stages+:`, it is appended instead.
- `${model.language.vocabulary}` stands for the value of another key, after all files and options were read.
- `seed` (default 0) seeds everything that is random.

`None` in a description is `null` in YAML. This page is generated from the code's signatures and docstrings by
`python -m tests.docs.configuration`.
"""
DATA = """## data

`class_path` is the class that provides the data, `init_args` has its keys:

```yaml
data:
  class_path: vargpt_lightning.data.corpora.Packed
  init_args:
    train: {drawings: data/drawings}
```
"""
DOCUMENTED_BY = {VARGPTConfig: Settings}
ORDER = ("run", "stages", "data", "model", "init_from", "trainer", "evaluation", "sampling", "plan")
NAMES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true, false",
    types.NoneType: "null",
    Any: "anything",
}


def page() -> str:
    """Return the whole page."""
    submodules = ", ".join(f"`{name}`" for name in SUBMODULES)
    note = f"A list of stages, trained in this order. Submodules are {submodules}; the last stands for both projectors."
    tables = {name: [*section(name, kind)] for name, kind in SECTIONS.items()}
    tables |= {"stages": [*section("stages", Stage, note)], "data": [DATA, *data_tables()]}
    contents = "Sections: " + ", ".join(f"[{name}](#{name})" for name in ORDER) + ".\n"
    parts = [HEAD, contents, *(part for name in ORDER for part in tables.pop(name))]
    assert not tables, tables
    return "\n".join(parts).rstrip() + "\n"


def section(name: str, kind: type, note: str = "") -> Iterator[str]:
    """Yield a heading, a table of keys, and the sections below."""
    yield f"## {name}\n"
    yield "\n\n".join(filter(None, (summary(kind), note))) + "\n"
    known = meanings(kind)
    if kind is VARGPTConfig:
        known = {key: preset_values(key) + text for key, text in known.items()}
    yield table(kind, known, name)
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if (below := dataclass_in(hints[entry.name])) is not None:
            yield from section(f"{name}.{entry.name}", below)


def data_tables() -> Iterator[str]:
    """Yield the keys of each class of corpora, then those that they share."""
    shared = meanings(LoaderSettings)
    for kind in (Packed, OpenMoji, Scenes):
        own = meanings(kind)
        yield f"### {kind.__name__}\n\n{summary(kind)}\n\n{table(kind, own, 'data', own)}"
    yield f"### Keys of all\n\n{table(Packed, shared, 'data', shared)}"


def table(kind: type, known: dict[str, str], where: str, only: Any = None) -> str:
    """Return the keys of a dataclass with types, defaults and meanings.

    Raises:
        KeyError: a key that no docstring explains; names it.
    """
    hints = get_type_hints(kind, include_extras=True)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for entry in (each for each in fields(kind) if each.init and (only is None or each.name in only)):
        below = dataclass_in(hints[entry.name])
        if below is not None:
            inside = f"{where}.{entry.name}"
            values = f"[{inside}](#{inside.replace('.', '')})"
            text = known.get(entry.name, "see")
            meaning = summary(below) if text.startswith("see") else text
        elif entry.name in known:
            values, meaning = words(hints[entry.name]), known[entry.name]
        else:
            raise KeyError(f"{kind.__name__}.{entry.name} is in no docstring")
        rows.setdefault((values, default(entry), meaning), []).append(f"`{entry.name}`")
    lines = [
        f"| {', '.join(keys)} | {values} | {set_to} | {meaning} |" for (values, set_to, meaning), keys in rows.items()
    ]
    return "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *lines, ""])


def meanings(kind: type) -> dict[str, str]:
    """Return what docstrings say of a class's keys: its own, then those of the class that takes its arguments."""
    found = described(DOCUMENTED_BY[kind]) if kind in DOCUMENTED_BY else {}
    return {**found, **described(kind)}


def described(kind: type) -> dict[str, str]:
    """Return the entries of a docstring's Args or Attributes; `a, b: text` is an entry of both."""
    text = inspect.getdoc(kind) or ""
    found: dict[str, str] = {}
    match = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    for entry in re.split(r"\n(?=    \S)", match.group(1).rstrip() if match else ""):
        keys, colon, meaning = entry.partition(":")
        if colon:
            meaning = " ".join(meaning.split()).replace("``", "`").replace("|", "\\|")
            found |= dict.fromkeys((key.strip() for key in keys.split(",")), meaning)
    return found


def summary(kind: type) -> str:
    """Return a docstring's first sentences, up to its first empty line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def preset_values(key: str) -> str:
    """Return what the presets set a key to, where they differ."""
    known = {**PRESETS, **{f"v1_1 {name}": settings for name, settings in V1_1.items()}}
    values = {name: getattr(settings, key, None) for name, settings in known.items()}
    if len(set(values.values())) < 2:
        return ""
    return "; ".join(f"{name}: `{plain(value)}`" for name, value in values.items()) + ". "


def words(kind: Any) -> str:
    """Return what values a type takes."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{words(inside[0])} {limits(inside[1])}"
    if origin in (Union, types.UnionType):
        return " or ".join(words(each) for each in inside)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin is list or (origin is tuple and inside[-1] is ...):
        return f"list of {words(inside[0])}"
    if origin is tuple:
        return f"list of {len(inside)}, each {words(inside[0])}"
    if origin is dict:
        return f"mapping from names to {words(inside[1])}"
    return NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def limits(within: Range) -> str:
    """Return a range in words, without an upper end that nobody meets."""
    if within.high < 100_000:
        return repr(within)
    return f"above {within.low:,}" if within.above else f"from {within.low:,}"


def dataclass_in(kind: Any) -> type | None:
    """Return the dataclass that a type is, may be, or holds."""
    if isinstance(kind, type) and is_dataclass(kind):
        return kind
    return next((found for each in get_args(kind) if (found := dataclass_in(each)) is not None), None)


def default(entry: Field[Any]) -> str:
    """Return a key's default as it would be written."""
    made: Any = entry.default_factory() if entry.default_factory is not MISSING else entry.default
    if made is MISSING:
        return "required"
    return "" if is_dataclass(made) else f"`{plain(made)}`"


def plain(value: Any) -> str:
    """Return a value as YAML on one line, texts without quotes."""
    if isinstance(value, str) and value:
        return value
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
