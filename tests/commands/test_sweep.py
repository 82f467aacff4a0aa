"""`vargpt sweep` as a person types it: plan, run, show, and what is told of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sweep.conftest import planned, starts, sweep_file  # noqa: F401 - fixtures
from vargpt_lightning.cli import main
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.worker import work

MakeFile = Callable[..., Path]


def test_a_sweep_is_planned_run_and_shown(sweep_file: MakeFile, capfd: Any, tmp_path: Path) -> None:  # noqa: F811
    file = sweep_file(grid={"fake.cfg": [1.0, 2.0]}, variants={"good": {}, "bad": {"fake.fail": True}})
    assert main(["sweep", str(file), "--workers", "2"]) == 1, "something failed"
    said = capfd.readouterr().out
    assert "planned: 4 trials, 4 of them new" in said and "2 finished, 2 failed" in said
    assert "fake.fail=True; expected false" in said
    assert main(["sweep", "show", "sweeps/s", "--csv", "t.csv", "--latex", "t.tex", "--plot", "t.png"]) == 0
    assert "20.00 *" in capfd.readouterr().out
    assert (tmp_path / "t.csv").read_text().startswith("variant,fake.cfg,changes,score,")
    assert (tmp_path / "t.tex").is_file() and (tmp_path / "t.png").is_file()
    (tmp_path / "sweeps/s/mended").touch()
    assert main(["sweep", "sweeps/s", "--retry"]) == 0
    assert "failed trials to try again: 2" in capfd.readouterr().out
    assert len(starts(SweepFolder("sweeps/s"))) == 6


def test_the_command_line_changes_the_plan(sweep_file: MakeFile, tmp_path: Path) -> None:  # noqa: F811
    file = sweep_file(grid={"fake.cfg": [1.0]})
    (tmp_path / "other.yaml").write_text("stages: []\n")
    words = ["--base", "other.yaml", "--seeds", "2", "--set", "fake.k=7", "--name", "try", "--root", "here", "--plan"]
    assert main(["sweep", str(file), *words]) == 0
    folder = SweepFolder("here/try")
    assert [row.seed for row in folder.rows()] == [0, 1]
    assert yaml.safe_load(folder.experiment("cfg1-seed0").read_text())["fake"] == {"k": 7, "cfg": 1.0}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.yaml"], "none.yaml cannot be read"),
        (["show", "nowhere"], "nowhere is not a sweep: plan.json is missing"),
        (["s.yaml", "--set", "oops"], "'oops'; expected KEY=VALUE"),
    ],
)
def test_a_mistake_is_one_line(sweep_file: MakeFile, words: list[str], told: str, capfd: Any) -> None:  # noqa: F811
    sweep_file()
    assert main(["sweep", *words]) == 2
    assert told in capfd.readouterr().err


def test_a_mistake_in_a_cell_is_told_before_anything_runs(sweep_file: MakeFile, capfd: Any) -> None:  # noqa: F811
    stage = {"name": "one", "steps": 5, "train": ["visual_decoder"], "data": {"drawings": 1.0}}
    base = {"data": {"class_path": "OpenMoji", "init_args": {}}, "stages": [stage]}
    file = sweep_file(base=base, program=["vargpt", "fit"], variants={"odd": {"model.decoder.deep": 3}})
    assert main(["sweep", str(file)]) == 2
    said = capfd.readouterr().err
    assert "odd-seed0: model.decoder.deep is not a key; did you mean 'depth'?" in said
    assert not Path("sweeps").exists()


@pytest.mark.parametrize(("keep", "left"), [("all", 2), ("best", 1), ("figures", 0)])
def test_what_is_kept(planned: Callable[..., SweepFolder], keep: str, left: int) -> None:  # noqa: F811
    from vargpt_lightning.sweep.tidy import tidy

    folder = planned(grid={"fake.cfg": [1.0, 2.0]}, keep=keep)
    work(folder)
    for row in folder.rows():
        (folder.run(row.name) / "stages/01-train/model.safetensors").write_text("weights")
    tidy(folder, folder.rows())
    assert len(list(folder.path.glob("trials/*/stages/*/model.safetensors"))) == left
    assert keep != "best" or (folder.run("cfg2-seed0") / "stages/01-train/model.safetensors").exists()


def test_submitit_hands_workers_out(planned: Callable[..., SweepFolder]) -> None:  # noqa: F811
    """On its executor of this machine, which is to Slurm's what a process is to a job."""
    import time

    from vargpt_lightning.sweep.launch import submit

    folder = planned(grid={"fake.cfg": [1.0, 2.0]})
    assert len(submit(folder, 1, "local", {"timeout_min": 5})) == 1
    deadline = time.monotonic() + 120
    while any(row.state != "finished" for row in folder.rows()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert len(starts(folder)) == 2


SHIPPED = sorted((Path(__file__).resolve().parents[2] / "experiments" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_shipped_sweeps_fit_their_base_and_the_debug_experiment(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cell's experiment is read as its trial reads it, and its model's sizes fit."""
    monkeypatch.chdir(tmp_path)
    debug = file.parents[1] / "debug.yaml"
    # held_out varies scenes, samplers give a value for each of five scales: the debug experiment has neither
    own = ("held_out", "samplers")
    if file.stem not in own:
        assert main(["sweep", str(file), "--base", str(debug), "--seeds", "1", "--name", "debug", "--plan"]) == 0
    if file.stem in ("projectors", "stages_left_out", *own):  # the others change nothing that could fail to fit
        assert main(["sweep", str(file), "--plan"]) == 0
