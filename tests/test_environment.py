"""The three ways to set up agree: pyproject.toml, environment.yml and the Makefile."""

from __future__ import annotations

import os
import runpy
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKED = "install --constraint constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda() -> tuple[list[str], list[str]]:
    """The environment's own packages, and those for pip."""
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return [p for p in packages if isinstance(p, str)], next(p["pip"] for p in packages if isinstance(p, dict))


def test_environment_has_the_projects_packages() -> None:
    _, pip = conda()
    assert pip[-1] == "--editable ."
    assert pip[:-1] == [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def test_pictures_are_measured_without_an_extra() -> None:
    """The extra that had these packages stays, for those who ask for it."""
    needed = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert {"open-clip-torch", "torch-fidelity"} <= needed and PROJECT["optional-dependencies"]["evaluation"] == []


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
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    steps = make("demo", "PYTHON=python3.12", folder=tmp_path)
    order = [
        steps.index(part)
        for part in ("python3.12 -m venv .venv", f"{LOCKED} -e .", "vargpt fit -c experiments/openmoji")
    ]
    assert order == sorted(order)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / ".installed").touch()
    assert "install" not in make("demo", folder=tmp_path) and "venv " not in make("demo", folder=tmp_path)
    assert f'{LOCKED} -e ".[dev]"' in make("test", folder=tmp_path), "the tests need more than the demo"
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(tmp_path / name, (2**32, 2**32))
        assert f"{LOCKED} -e ." in make("demo", folder=tmp_path), "a changed project is installed again"
        os.utime(tmp_path / name, (0, 0))


def test_the_newest_packages_have_an_environment_of_their_own(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    steps = make("test", "NEWEST=1", folder=tmp_path)
    assert "-m venv .venv-newest" in steps and "constraints.txt" not in steps
    assert (
        ".venv-newest/bin/python -m pip" in steps and 'install --upgrade --upgrade-strategy eager -e ".[dev]"' in steps
    )


def locked() -> dict[str, list[str]]:
    """The versions of constraints.txt by normalised name."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (one,) = requirement.specifier
            assert one.operator == "==", line
            found.setdefault(canonicalize_name(requirement.name), []).append(one.version)
    return found


def test_every_package_is_locked_within_its_range() -> None:
    """`make lock` writes the file; a new package or range without it is found here."""
    versions = locked()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        assert all(wanted.specifier.contains(each) for each in versions[canonicalize_name(wanted.name)]), text
        assert any(one.operator == "<" for one in wanted.specifier), f"{text} has no upper bound"


def test_one_line_a_package_unless_pythons_differ() -> None:
    lines = runpy.run_path(str(ROOT / ".ci" / "lock.py"))["lines"]
    found = {"3.11": {"b": "1", "a": "2"}, "3.12": {"b": "1", "a": "3", "c": "4"}, "3.13": {"b": "1", "a": "3"}}
    assert lines(found) == [
        'a==2 ; python_version == "3.11"',
        'a==3 ; python_version == "3.12" or python_version == "3.13"',
        "b==1",
        "c==4",
    ]
