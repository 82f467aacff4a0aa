"""Every notebook runs from top to bottom on small runs, and is kept in git without its outputs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.spec import parse_sweep
from vargpt_lightning.utils.files import read_jsonl, write_json, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {
    "01_read_a_run": 9,
    "02_compare_runs": 2,
    "03_ablations": 3,
    "04_look_at_errors": 2,
    "05_attention_and_scales": 9,
    "06_composition": 5,
}
"""How many pictures each of them shows of the small runs."""


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=4)


class ThisInterpreter(KernelSpecManager):
    """Kernels of the interpreter that runs the tests, whatever kernels are installed on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, debug_run: Path) -> dict[str, str]:
    """The variables that tell the notebooks what to read: runs of which one answers and draws more, and a sweep."""
    folder = tmp_path_factory.mktemp("notebooks")
    able = Path(shutil.copytree(debug_run, folder / "able"))
    for step in (1, 2):
        RunFolder(able).stages()[0].log(step, {f"train/codebook_usage_scale_{k}": 30.0 * k for k in (1, 2, 3)})
    answers = read_jsonl(able / "evaluation/answers.jsonl")
    half = [row | {"answer": row["expected"]} for row in answers[: len(answers) // 2]]
    write_jsonl(able / "evaluation/answers.jsonl", half + answers[len(half) :])
    drawings = read_jsonl(able / "evaluation/drawings.jsonl")
    drawn = [row | {"files": [f"real/{row['picture']}.png"]} for row in drawings]
    write_jsonl(able / "evaluation/drawings.jsonl", drawn)
    scores = [{"id": row["id"], "rank": n % 3, "nearest": row["picture"]} for n, row in enumerate(drawn)]
    write_jsonl(able / "evaluation/drawing_scores.jsonl", scores)
    write_jsonl(able / "evaluation/scene_verdicts.jsonl", [verdict("seen", "red"), verdict("unseen", "blue")])
    write_sweep(folder / "sweep")
    several = os.pathsep.join([str(debug_run), str(able)])
    return {"VARGPT_RUN": str(able), "VARGPT_RUNS": several, "VARGPT_SWEEP": str(folder / "sweep")}


def verdict(split: str, colour: str) -> dict[str, Any]:
    """A row of a run on scenes: an apple was asked for, and a red one is seen."""
    scene = {"kind": "colour", "things": [["apple", colour]], "relation": None, "colours": True}
    things = [{"shape": "apple", "colour": "red", "centre": [32.0, 32.0]}]
    asked = {"id": split, "split": split, "prompt": f"Please draw a {colour} apple.", "kind": "colour"}
    return asked | {"right": colour == "red", "scene": scene, "things": things}


def write_sweep(path: Path) -> None:
    """A finished sweep of two axes and two seeds, without its trainings."""
    base = path.with_name("base.yaml")
    base.write_text(yaml.safe_dump({"sampling": {}}))
    grid = {"sampling.cfg": [1.0, 2.0, 3.0], "sampling.top_k": [50, 900]}
    tree = {"base": "base.yaml", "grid": grid, "seeds": 2, "measure": {"identification_1": "max", "kid": "min"}}
    folder, _ = SweepFolder.make(parse_sweep(tree, path.with_name("sweep.yaml")), path)
    while taken := folder.take():
        values = yaml.safe_load(folder.experiment(taken.name).read_text())["sampling"]
        run = RunFolder.start(folder.run(taken.name), config_text=yaml.safe_dump({"sampling": values}))
        share = {"rate": 1 / values["cfg"], "low": 0.1, "high": 0.9, "n": 9}
        write_json(run.evaluation / "metrics.json", {"drawings": {"train": {"same_category": share}}})
        run.end("finished")
        measures = {"identification_1": 1 / values["cfg"], "kid": 100 + values["top_k"] / 100 + taken.number}
        folder.end(taken, "finished", measures, seconds=10.0 * values["cfg"])


@pytest.fixture(scope="module")
def kernel(runs: dict[str, str]) -> Iterator[AsyncKernelManager]:
    """One kernel for all notebooks, which is emptied before each: starting one takes longer than most of them."""
    home = tempfile.mkdtemp(prefix="nb-")  # the names of its sockets may have a hundred letters
    own = {**runs, "IPYTHONDIR": home, "JUPYTER_CONFIG_DIR": home, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    manager = AsyncKernelManager(
        kernel_spec_manager=ThisInterpreter(),
        transport="ipc",  # no ports, which tests in another process might take
        ip=f"{home}/k",
        connection_file=f"{home}/kernel.json",
    )
    asyncio.run(manager.start_kernel(env={**os.environ, **own}, cwd=str(ROOT / "notebooks")))
    yield manager
    asyncio.run(manager.shutdown_kernel(now=True))
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_top_to_bottom(file: Path, kernel: AsyncKernelManager) -> None:
    notebook = read(file)
    check = "import sys, vargpt_lightning; print(sys.executable, vargpt_lightning.__file__)"
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f\n" + check))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()
    client.kc.stop_channels()
    first, *outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert first.text.split() == [sys.executable, str(ROOT / "vargpt_lightning" / "__init__.py")]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[file.stem]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "nothing of widgets, or of an editor"
    assert notebook.metadata.kernelspec.name == "python3", "the kernel of the environment that Jupyter runs in"
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert "execution" not in cell.metadata, "when it ran"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_short_and_says_what_to_look_for(file: Path) -> None:
    cells = read(file).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ") and "VARGPT_" in cells[1].source
    titles = [cell.source for cell in cells[1:] if cell.cell_type == "markdown"]
    assert len(titles) >= 3
    for text in titles:
        head, _, words = text.partition("\n\n")
        assert head.startswith("## ") and words.startswith("Look ")
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert all(len(source.splitlines()) <= 20 and "def " not in source for source in code), "logic is the package's"
