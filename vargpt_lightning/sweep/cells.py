"""The experiment of a cell: its base with the sweep's and the cell's changes, as a file that `vargpt fit` takes.

A change is a dotted key. `stages.NAME.KEY` changes one stage of the base by its name, and `stages.NAME: null` leaves
the stage out; a change below `data.init_args` keeps the base's class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.experiment.changes import changed
from vargpt_lightning.experiment.files import Tree, chain
from vargpt_lightning.sweep.spec import Sweep
from vargpt_lightning.utils.files import settings_hash, write_bytes


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Attributes:
        values: what varies in the sweep, and its value here.
        seed: of this repetition.
        tree: the experiment's file, its base left out.
        bases: name and content of the file that it starts from, behind those that this one starts from.
        key: hash of all that the experiment says; the same key is the same trial.
        changes: what the cell changes of the base, by dotted key, the seed and what all cells change left out.
    """

    values: dict[str, Any]
    seed: int
    tree: Tree
    bases: list[tuple[str, Tree]]
    key: str
    changes: dict[str, Any]

    @property
    def slug(self) -> str:
        """A short name for folders, such as `cfg1.5-top_k900-seed0`."""
        parts = [
            str(value) if key in ("base", "variant") else f"{key.rpartition('.')[2]}{_short(value)}"
            for key, value in self.values.items()
        ]
        text = re.sub(r"[^\w.+-]+", "_", "-".join([*parts, f"seed{self.seed}"])).lstrip(".")
        short = text.encode()[:80].decode(errors="ignore")  # a name of a file is as long as its bytes
        return text if short == text else f"{short[:71]}-{self.key[:8]}"


def make_cell(sweep: Sweep, values: Mapping[str, Any], seed: int) -> Cell:
    """Return the cell of some values.

    Raises:
        UserError: a change of a stage that the base has not, or below a value that has no keys.
    """
    base = sweep.bases[values.get("base", next(iter(sweep.bases)))]
    changes = dict(sweep.variants.get(values.get("variant", ""), {}))
    changes |= {key: value for key, value in values.items() if key not in ("base", "variant")}
    bases = [(path.stem, {key: part for key, part in tree.items() if key != "base"}) for path, tree in chain(base)]
    trees = [tree for _, tree in bases]
    tree = changed(trees, {**sweep.overrides, **changes, sweep.seed_key: seed})
    key = settings_hash([[{name: part[name] for name in part if name != "run"} for part in trees], tree])
    return Cell(dict(values), seed, tree, bases, key, changes)


def write_cell(cell: Cell, file: Path, title: str) -> None:
    """Write a cell's experiment file, and copies of its bases in a folder beside: they may change before it is run."""
    below = ""
    for name, tree in cell.bases:
        copied = file.parent / "bases" / f"{name}-{settings_hash([below, tree])}.yaml"
        if not copied.is_file():
            _write(copied, f"a copy of {name}.yaml", {**({"base": below} if below else {}), **tree})
        below = copied.name
    _write(file, title, {"base": f"bases/{below}", **cell.tree})


def _write(file: Path, title: str, tree: Tree) -> None:
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    write_bytes(file, f"# {title}\n{text}".encode())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
