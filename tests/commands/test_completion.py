from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vargpt_lightning import __version__
from vargpt_lightning.cli import COMMANDS, main
from vargpt_lightning.commands.completion import SCRIPTS, candidates
from vargpt_lightning.results import RunFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of two stages, and the experiments."""
    run = RunFolder.start(tmp_path / "runs" / "openmoji")
    run.stage(1, "base").update(status="finished")
    run.stage(2, "generation").update(status="finished")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ([""], {*COMMANDS, "version"}),
        (["gen"], {"generate"}),
        (["generate", ""], {"runs/openmoji"}),
        (["generate", "runs/openmoji", "Draw.", "--s"], {"--seed", "--stage"}),
        (["generate", "runs/openmoji", "Draw.", "--stage", ""], {"base", "generation"}),
        (["generate", "--device", "c"], {"cpu", "cuda"}),
        (["evaluate", "runs/openmoji", "--benchmarks", "mm"], {"mmbench", "mme", "mmmu"}),
        (["evaluate", "images", ""], {"prompts", "sample", "measure", "run"}),
        (["evaluate", "images", "run", "--me"], {"--metrics"}),
        (["evaluate", "ex"], {"export"}),
        (["evaluate", "export", "--o"], {"--out"}),
        (["data", ""], {"pack", "check", "write-instructions"}),
        (["data", "pack", "--dup"], {"--duplicates"}),
        (["convert", "runs/openmoji", "--to", ""], {"ours", "llava", "var", "vargpt"}),
        (["plan", "x.yaml", "--gpus", "H100"], {"H100-80GB", "H100-PCIe-80GB"}),
        (["sweep", ""], {"worker", "show"}),
        (["fit", "-c", ""], {"experiments/openmoji.yaml"}),
        (["fit", "--run"], {"--run.name", "--run.root"}),
        (["fit", "-c", "experiments/openmoji.yaml", "--stages."], {"--stages.base.", "--stages.generation."}),
        (["fit", "-c", "experiments/openmoji.yaml", "--from", "gen"], {"generation"}),
        (["--debug", "gen"], {"generate"}),
    ],
)
def test_what_may_come_next(words: list[str], some: set[str], place: Path) -> None:
    assert some <= set(candidates(words))
    assert all(word.startswith(words[-1]) for word in candidates(words))


@pytest.mark.parametrize("words", [["nothing", ""], ["fit", "-c", "no.yaml", "--stages."], ["data", "nothing", ""]])
def test_what_is_wrong_before_offers_nothing(words: list[str], place: Path) -> None:
    assert candidates(words) == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_script_is_printed_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "vargpt completion --words" in script
    if found := shutil.which(shell):
        done = subprocess.run([found, "-n"], input=script, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0 and not done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(place: Path) -> None:
    """What bash does at the tab key, with the installed command."""
    words = 'COMP_WORDS=(vargpt generate ru); COMP_CWORD=2; _vargpt; echo "${COMPREPLY[@]}"'
    path = f"PATH={Path(sys.executable).parent}:$PATH"
    code = f'export {path}; eval "$(vargpt completion bash)"; {words}'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["runs/openmoji"], done.stderr


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_the_version_has_three_names(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"vargpt {__version__}\n"
