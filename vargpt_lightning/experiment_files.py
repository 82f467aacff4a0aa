"""Experiment files and the bases that they start from, as they stand on the disk. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.errors import UserError, near_path
from vargpt_lightning.yaml_text import load_yaml, told

Tree = dict[str, Any]
SHIPPED = Path(__file__).resolve().parents[1] / "experiments"
SOURCE = "https://github.com/vargpt-lightning/vargpt-lightning"


def chain(path: Path, after: tuple[Path, ...] = ()) -> list[tuple[Path, Tree]]:
    """Return the file and, before it, those that it starts from, with what they hold.

    Raises:
        UserError: a file that cannot be read, is no YAML or holds no keys; bases that lead in a circle.
    """
    asked_by = f", the base of {after[-1]}," if after else ""
    if path.resolve() in [earlier.resolve() for earlier in after]:
        raise UserError(f"config {after[0]}: its bases lead in a circle: {', '.join(map(str, [*after, path]))}")
    tree = read_tree(path, asked_by)
    base = tree.get("base")
    if base is not None and not isinstance(base, str):
        raise UserError(f"config {path}: base={base!r}; expected the name of a file beside it")
    before = chain(path.parent / base, (*after, path)) if base else []
    return [*before, (path, tree)]


def read_tree(path: Path, asked_by: str = "", what: str = "config") -> Tree:
    """Return the keys and values of one file, called `what` in messages; raises as `chain` does."""
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = shipped_hint(path) if what == "config" else ""
        near = near or ("" if path.exists() else near_path(path))
        raise UserError(f"{what} {path}{asked_by} cannot be read: {error.strerror or error}{near}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}{asked_by} is not a text file") from error
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{what} {path}{place}: {problem}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{what} {path}{asked_by} holds no keys; expected some, with values")
    return tree


def shipped_hint(path: Path, folder: Path = SHIPPED) -> str:
    """Return where the experiments that a missing file may be one of are, for messages; "" where it is another."""
    if path.exists() or (folder.is_dir() and not (folder / path.name).is_file()):
        return ""
    if not folder.is_dir():
        return f"; experiments come with the source code, in its folder `experiments`: git clone {SOURCE}"
    return f"; `cp -r {folder} .` puts the experiments that come with the package here"
