"""Sweeps of a stand-in program that takes milliseconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.spec import parse_sweep

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, str(Path(__file__).with_name("stand_in.py"))]

MakeFile = Callable[..., Path]


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFile:
    """Write a sweep file with a base beside it; keyword arguments are its keys."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)

    def make(base: dict[str, Any] | None = None, **keys: Any) -> Path:
        stages = [{"name": "one", "steps": 5, "train": ["x"]}, {"name": "two", "epochs": 1.0, "train": ["x"]}]
        tree = {"stages": stages, "data": {"class_path": "Some", "init_args": {"a": 1}}, **(base or {})}
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))
        sweep = {"base": "base.yaml", "measure": ["score"], "program": PROGRAM, **keys}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
        return tmp_path / "s.yaml"

    return make


@pytest.fixture
def planned(sweep_file: MakeFile, tmp_path: Path) -> Callable[..., SweepFolder]:
    """Plan a sweep of the stand-in."""

    def make(**keys: Any) -> SweepFolder:
        file = sweep_file(**keys)
        return SweepFolder.make(parse_sweep(yaml.safe_load(file.read_text()), file), tmp_path / "sweeps/s")[0]

    return make


def starts(folder: SweepFolder) -> list[str]:
    """The names of the trials that were started, in their order."""
    file = folder.path / "started.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []
