"""The three ways to set up agree: pyproject.toml, environment.yml and the Makefile."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda() -> tuple[list[str], list[str]]:
    """The environment's own packages, and those for pip."""
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return [p for p in packages if isinstance(p, str)], next(p["pip"] for p in packages if isinstance(p, dict))


def test_environment_has_the_projects_packages() -> None:
    _, pip = conda()
    assert pip[-1] == "--editable ."
    assert pip[:-1] == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def test_environment_has_the_projects_python() -> None:
    packages, _ = conda()
    assert packages[0] == f"python{PROJECT['requires-python']}"


def make(*arguments: str, folder: Path) -> str:
    """What make would do, by its own words; it does nothing."""
    command = ["make", "--dry-run", "-f", str(ROOT / "Makefile"), *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fresh_clone_sets_itself_up_once(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    steps = make("demo", "PYTHON=python3.12", folder=tmp_path)
    order = [
        steps.index(part) for part in ("python3.12 -m venv .venv", "install -e .", "vargpt fit -c experiments/openmoji")
    ]
    assert order == sorted(order)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / ".installed").touch()
    assert "install" not in make("demo", folder=tmp_path) and "venv " not in make("demo", folder=tmp_path)
    assert 'install -e ".[dev]"' in make("test", folder=tmp_path), "the tests need more than the demo"
    os.utime(tmp_path / "pyproject.toml", (2**32, 2**32))
    assert "install -e ." in make("demo", folder=tmp_path), "a changed project is installed again"
