"""Style and types, as `make lint` checks them."""

from __future__ import annotations

import ast
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from vargpt_lightning.data import sources
from vargpt_lightning.evaluation import benchmarks, judges
from vargpt_lightning.models import vision
from vargpt_lightning.utils.plugins import named_modules

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "vargpt_lightning"
COMMAND_LINES = 150
MOST_IMPORTS = 20
MOST_FILES = 16
PLUGINS = {
    f"{PACKAGE}.data.sources": "a file for each published corpus, found by its name",
    f"{PACKAGE}.evaluation.benchmarks": "a file for each public benchmark, found by its name",
}


def checked(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the checkout; one at a time, since the second mypy finds the cache of the first."""
    command = [str(Path(sys.executable).with_name(program)), *words]
    with open(Path(tempfile.gettempdir()) / f"{program}-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=500
        )


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_the_house_is_in_order(command: list[str]) -> None:
    done = checked(*command)
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


def modules() -> dict[str, Path]:
    """The files of the package by module name; `callbacks` and `evaluation` are links in it."""
    found: dict[str, Path] = {}
    for folder in (PACKAGE, f"{PACKAGE}/callbacks", f"{PACKAGE}/evaluation"):
        for file in (ROOT / folder).rglob("*.py"):
            found[".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = file
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Names that a file imports, at its top and in its functions, but not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield f"{node.module}.{name.name}"
        yield from imported(node)


@cache
def graph() -> Mapping[str, frozenset[str]]:
    """What each file of the package imports of the others."""
    files = modules()
    found = {}
    for module, file in files.items():
        names = set(imported(ast.parse(file.read_text("utf-8"))))
        targets = {name if name in files else name.rpartition(".")[0] for name in names}
        found[module] = frozenset((targets & files.keys()) - {module})
    return found


def cycles(edges: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another: the strongly connected components of more than one node, by Tarjan."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in edges[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            if len(group := stack[at:]) > 1:
                found.append(sorted(group))
            del stack[at:]

    for node in edges:
        if node not in order:
            visit(node)
    return found


def test_commands_parse_call_and_print() -> None:
    """What is longer, or no command, belongs in the room of its work."""
    files = {name: file for name, file in modules().items() if name.startswith(f"{PACKAGE}.commands")}
    texts = {name: file.read_text("utf-8") for name, file in files.items()}
    assert len(files) > 20
    assert {name: lines for name, text in texts.items() if (lines := text.count("\n")) > COMMAND_LINES} == {}
    mains = {name for name, text in texts.items() if re.search(r"^def main\(", text, re.MULTILINE)}
    helpers = {name for name, file in files.items() if file.name in ("options.py", "__init__.py")}
    assert files.keys() - mains - helpers == set()


def test_no_file_imports_half_of_the_package() -> None:
    assert sum(map(len, graph().values())) > 1000, "imports were found"
    assert {name: len(others) for name, others in graph().items() if len(others) > MOST_IMPORTS} == {}


def test_no_files_import_one_another() -> None:
    assert cycles({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a")}) == [
        ["a", "b", "c"]
    ]
    assert cycles(graph()) == []


def test_folders_can_be_looked_over() -> None:
    counts: dict[str, int] = {}
    for name, file in modules().items():
        if file.name != "__init__.py":
            folder = name.rpartition(".")[0]
            counts[folder] = counts.get(folder, 0) + 1
    assert PLUGINS.keys() <= counts.keys()
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES and folder not in PLUGINS} == {}


def test_our_benchmarks_sources_and_towers_are_what_their_protocols_say(tmp_path: Path) -> None:
    """mypy holds modules against Protocols where they are named; they are found by their names elsewhere."""
    kinds = {"Benchmark": ("evaluation.benchmarks", benchmarks), "Source": ("data.sources", sources)}
    kinds |= {"Tower": ("models.vision", vision), "Judge": ("evaluation.judges", judges)}
    lines = [
        "from vargpt_lightning.data.sources.base import Source",
        "from vargpt_lightning.evaluation.base.benchmark import Benchmark",
        "from vargpt_lightning.evaluation.base.judge import Judge",
        "from vargpt_lightning.models.vision.tower import Tower",
    ]
    for protocol, (package, there) in kinds.items():
        for name in named_modules(there.__path__):
            lines += [f"from vargpt_lightning.{package} import {name} as {protocol}_{name}"]
            lines += [f"{name}: {protocol} = {protocol}_{name}"]
    lines += [
        "from vargpt_lightning.modules.objectives import GenerationModule, Objective, TokenizerModule, UnifiedModule"
    ]
    lines += ["objectives: list[Objective] = [GenerationModule, TokenizerModule, UnifiedModule]"]
    lines += ["import torch", "from vargpt_lightning.models.decoder.sampling import Sampler, SamplingSettings"]
    lines += [
        "def sample(x: torch.Tensor, how: SamplingSettings, from_: torch.Generator | None) -> torch.Tensor: return x"
    ]
    lines += ["sampler: Sampler = sample"]
    lines += ["wrong: Benchmark = Tower_clip"]
    (tmp_path / "held.py").write_text("\n".join(lines))
    settings = ["--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "held.py")]
    done = checked("mypy", *settings, MYPYPATH=str(ROOT))
    found = [line for line in done.stdout.splitlines() if "held.py" in line]
    assert len(found) == 1 and f"held.py:{len(lines)}" in found[0], done.stdout + done.stderr
