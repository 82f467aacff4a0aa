"""Style and types, as `make lint` checks them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_the_house_is_in_order(command: list[str]) -> None:
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_function_without_types_is_noticed(tmp_path: Path) -> None:
    """The settings of pyproject.toml reach mypy."""
    (tmp_path / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    program = str(Path(sys.executable).with_name("mypy"))
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), str(tmp_path / "loose.py")]
    done = subprocess.run([program, *settings], capture_output=True, text=True, timeout=300)
    assert "no-untyped-def" in done.stdout


def test_no_top_level_entry_is_unexpected() -> None:
    """The top level is fixed; whatever else is tracked there needs a decision."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    folders = {
        "vargpt_lightning",
        "experiments",
        "callbacks",
        "evaluation",
        "notebooks",
        "docs",
        "findings",
        "tests",
        ".ci",
    }
    files = {"environment.yml", "README.md", "pyproject.toml", "Makefile", "LICENSE", "CHANGELOG.md", ".gitignore"}
    files |= {"CONTRIBUTING.md", "CITATION.cff", "SECURITY.md", "mkdocs.yml", "constraints.txt", ".gitattributes"}
    found = {name.split("/")[0] for name in tracked.stdout.splitlines()}
    assert found <= folders | files


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    cited = {each["url"] for each in citation["references"]}
    assert {f"https://arxiv.org/abs/{number}" for number in ("2501.12327", "2404.02905")} <= cited


def test_extras_are_installed_from_a_checkout() -> None:
    """No package index has this project, so `pip install` with its name alone fails; see `errors.install_hint`."""
    listed = subprocess.run(["git", "ls-files", "*.md", "*.py", "*.ipynb"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    wrong = re.compile(r"pip install ['\"]?vargpt.lightning(\[\w+\])?['\"]?(?! @)")
    texts = {name: (ROOT / name).read_text("utf-8") for name in listed.stdout.splitlines()}
    assert not [name for name, text in texts.items() if wrong.search(text)]
