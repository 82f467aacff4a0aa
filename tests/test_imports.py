"""Imports point one way, and the two packages at the top level have one name each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_the_contracts_see_every_module() -> None:
    """Two packages are symbolic links; were they skipped, their imports would be free."""
    seen = grimp.build_graph("vargpt_lightning", cache_dir=None).modules
    files = [
        path.relative_to(folder.parent).with_suffix("")
        for folder in (ROOT / "vargpt_lightning", ROOT / "callbacks", ROOT / "evaluation")
        for path in folder.rglob("*.py")
    ]
    names = {".".join(file.parts) for file in files if "__pycache__" not in file.parts}
    names = {name if name.startswith("vargpt_lightning") else f"vargpt_lightning.{name}" for name in names}
    assert {name.removesuffix(".__init__") for name in names} <= seen


@pytest.mark.parametrize("name", ["callbacks", "evaluation"])
def test_the_bare_name_is_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert f"ImportError: import vargpt_lightning.{name} instead of {name}" in done.stderr


@pytest.mark.parametrize("name", ["callbacks", "evaluation"])
def test_the_packages_are_links_into_the_top_level(name: str) -> None:
    link = ROOT / "vargpt_lightning" / name
    assert link.is_symlink() and link.readlink() == Path("..") / name
