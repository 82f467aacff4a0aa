"""What the command line changes of a sweep file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.experiment.files import read_tree
from vargpt_lightning.sweep.spec import Sweep, parse_sweep
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.yaml_text import load_yaml, told


def changed_sweep(
    file: Path,
    *,
    base: Sequence[str] | None = None,
    reuse: Sequence[str] | None = None,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> Sweep:
    """Return what a sweep file says, with other values for some of its keys.

    Args:
        base: experiment files.
        reuse: folders of runs.
        seeds: the seeds are 0 to `seeds` - 1.
        overrides: KEY=VALUE, for all trials.
        name: of the sweep's folder.

    Raises:
        UserError: the file or a change cannot be read.
    """
    tree = read_tree(file)
    if base:
        tree["base"] = [str(Path(each).resolve()) for each in base]
    if reuse:
        tree["reuse"] = list(reuse)
    if seeds:
        key = tree["seeds"].get("key", "seed") if isinstance(tree.get("seeds"), dict) else "seed"
        tree["seeds"] = {"key": key, "values": list(range(seeds))}
    if overrides:
        tree["overrides"] = {**(tree.get("overrides") or {}), **read_values(overrides)}
    if name:
        tree["name"] = name
    try:
        return parse_sweep(tree, file)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def read_values(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of KEY=VALUE; raises UserError for a word of another form."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r}; expected KEY=VALUE")
        try:
            found[key] = load_yaml(value)
        except yaml.YAMLError as error:
            raise UserError(f"{word!r} {told(error)[1]}; expected KEY=VALUE with a value of YAML") from error
    return found
