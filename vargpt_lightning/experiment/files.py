"""Experiment files and the bases that they start from, as they stand on the disk. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.yaml_text import read_yaml

Tree = dict[str, Any]
SHIPPED = Path(__file__).resolve().parents[2] / "experiments"
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


def read_tree(path: Path, asked_by: str = "") -> Tree:
    """Return the keys and values of one file; raises as `chain` does."""
    return read_yaml(path, "config", asked_by, missing=shipped_hint)


def shipped_hint(path: Path, folder: Path = SHIPPED) -> str:
    """Return where the experiments that a missing file may be one of are, for messages; "" where it is another."""
    if path.exists() or (folder.is_dir() and not (folder / path.name).is_file()):
        return ""
    if not folder.is_dir():
        return f"; experiments come with the source code, in its folder `experiments`: git clone {SOURCE}"
    return f"; `cp -r {folder} .` puts the experiments that come with the package here"
