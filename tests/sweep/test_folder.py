"""Planning and queueing: each cell once, whatever happens to those who work on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.conftest import starts
from vargpt_lightning.sweep.changes import changed_sweep
from vargpt_lightning.sweep.folder import SweepFolder
from vargpt_lightning.sweep.table import summarize
from vargpt_lightning.sweep.worker import work
from vargpt_lightning.utils.errors import UserError

Planned = Callable[..., SweepFolder]


def states(folder: SweepFolder) -> dict[str, str]:
    return {row.name: row.state for row in folder.rows()}


def test_planning_again_adds_only_what_is_new(planned: Planned) -> None:
    folder = planned(grid={"fake.cfg": [1.0, 2.0]}, seeds=2)
    assert len(folder.study.trials) == 4
    work(folder, limit=1)
    assert len(planned(grid={"fake.cfg": [1.0, 2.0]}, seeds=2).study.trials) == 4
    wider = planned(grid={"fake.cfg": [2.0, 1.0, 3.0]}, seeds=2)
    assert len(wider.study.trials) == 6
    assert list(states(wider).values()).count("finished") == 1
    narrower = planned(grid={"fake.cfg": [3.0]}, seeds=2)
    assert (len(narrower.rows()), narrower.left_out()) == (2, 4)
    work(narrower)
    assert set(starts(narrower)[1:]) == {"cfg3-seed0", "cfg3-seed1"}, "what the file no longer has is not run"


def test_near_seeds_and_values_are_cells_of_their_own(planned: Planned) -> None:
    """Optuna takes numbers for the same that differ by less than 1e-5 of themselves."""
    folder = planned(grid={"fake.cfg": [1.0, 1.0000001]}, seeds=[1_000_001, 1_000_002])
    assert len(folder.study.trials) == 4


def test_a_changed_experiment_is_another_trial(planned: Planned) -> None:
    work(planned(seeds=1))
    folder = planned(seeds=1, overrides={"fake.gain": 2.0})
    work(folder)
    (row,) = folder.rows()
    assert row.state == "finished" and row.name.startswith("seed0-") and len(folder.study.trials) == 2


def test_two_that_are_the_same_experiment_are_refused(planned: Planned) -> None:
    with pytest.raises(UserError, match="a-seed0, b-seed0 are the same experiment"):
        planned(variants={"a": {"fake.k": 1}, "b": {"fake.k": 1}})


def test_a_trial_that_another_holds_is_passed_over(planned: Planned) -> None:
    folder = planned(seeds=2)
    first, second = folder.take(), folder.take()
    assert first and second and first.number != second.number and folder.take() is None
    assert list(states(folder).values()) == ["running", "running"]
    first.lock.release()
    assert list(states(folder).values()) == ["interrupted", "running"], "begun, and held by nobody"
    again = SweepFolder(folder.path).take()
    assert again and again.number == first.number
    again.lock.release()
    second.lock.release()


def test_failed_trials_say_why_and_can_be_tried_again(planned: Planned) -> None:
    folder = planned(variants={"good": {}, "bad": {"fake.fail": True}})
    work(folder)
    rows = {row.name: row for row in folder.rows()}
    assert rows["bad-seed0"].state == "failed"
    assert rows["bad-seed0"].error == "fake.fail=True; expected false"
    assert rows["good-seed0"].measures == {"score": 10.0}
    work(folder)
    assert starts(folder) == ["good-seed0", "bad-seed0"], "neither is run again unasked"
    (folder.path / "mended").touch()
    assert folder.retry() == 1 and folder.retry() == 0
    work(folder)
    assert states(folder) == {"good-seed0": "finished", "bad-seed0": "finished"}
    assert starts(folder) == ["good-seed0", "bad-seed0", "bad-seed0"]


def test_without_its_aim_a_trial_has_failed_and_names_what_there_is(planned: Planned) -> None:
    folder = planned(measure=["nothing", "score"])
    work(folder)
    (row,) = folder.rows()
    assert row.state == "failed" and "measure nothing: the run has no such number; there are score" in row.error
    assert row.measures == {"score": 10.0}


def test_a_program_that_leaves_no_run_has_failed(planned: Planned) -> None:
    folder = planned(program=[sys.executable, "-c", "pass"])
    work(folder)
    (row,) = folder.rows()
    assert row.state == "failed" and "is not a run folder" in row.error


def test_another_figure_may_be_missing_and_can_be_asked_for_later(planned: Planned) -> None:
    folder = planned(measure=["score", "stages.train.loss:min", "nothing"])
    work(folder)
    (row,) = folder.rows()
    assert row.state == "finished" and "measure nothing: the run has no such number" in row.error
    assert row.measures == {"score": 10.0, "stages.train.loss:min": 0.2}
    again = planned(measure=["score", "deep.kid"])
    (row,) = again.rows()
    assert row.state == "finished" and not row.error
    assert row.measures["deep.kid"] == 5.0
    work(again)
    assert len(starts(again)) == 1, "nothing is run again for a figure"


def test_a_sampler_chooses_and_a_killed_choice_is_kept(planned: Planned) -> None:
    space = {"fake.cfg": {"low": 1.0, "high": 3.0}, "fake.k": {"choices": [0, 5]}}
    keys: dict[str, Any] = {"space": space, "sampler": {"name": "TPESampler", "seed": 3}}
    folder = planned(trials=3, **keys)
    taken = folder.take()
    assert taken is not None
    begun = folder.rows()[0].values
    taken.lock.release()
    work(SweepFolder(folder.path))
    rows = folder.rows()
    assert rows[0].values == begun and all(row.state == "finished" for row in rows)
    assert len({row.values["fake.cfg"] for row in rows}) == 3
    assert all(row.measures["score"] == row.values["fake.cfg"] * 10 + row.values["fake.k"] for row in rows)
    assert folder.study.best_trial.value == max(row.measures["score"] for row in rows)
    assert [row.state for row in planned(trials=5, **keys).rows()[3:]] == ["waiting", "waiting"]


def test_an_unknown_sampler_is_told_with_those_there_are(planned: Planned) -> None:
    with pytest.raises(UserError, match=r"sampler 'Best' is unknown; there are .*TPESampler"):
        planned(space={"fake.cfg": {"low": 1, "high": 3}}, trials=1, sampler="Best")


def test_a_trial_that_falls_behind_is_pruned(planned: Planned) -> None:
    prune = {"stage": "train", "metric": "loss", "pruner": "ThresholdPruner", "arguments": {"lower": -100.0}}
    folder = planned(
        variants={"good": {"fake.gain": 1.0}, "bad": {"fake.gain": 5000.0, "fake.seconds": 30}}, prune=prune
    )
    work(folder)
    assert states(folder) == {"good-seed0": "finished", "bad-seed0": "pruned"}


def test_a_trial_that_finished_when_its_worker_died_is_not_run_again(planned: Planned) -> None:
    folder = planned()
    taken = folder.take()
    assert taken is not None
    from vargpt_lightning.sweep.trial import TrialProcess

    assert TrialProcess(folder, taken).watch().state == "finished"
    taken.lock.release()  # as a death does, before the end was written down
    work(folder)
    assert states(folder) == {"seed0": "finished"} and len(starts(folder)) == 1


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"plan\.json is missing"):
        SweepFolder(tmp_path)


def lines(folder: SweepFolder) -> list[bytes]:
    return (folder.path / "journal.log").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("kept", [3, 10_000])
def test_a_torn_line_of_the_journal_is_cut_before_the_next(planned: Planned, kept: int) -> None:
    """A full disk or a kill tears the last line; what is then written behind it could never be read again."""
    folder = planned(grid={"fake.cfg": [1.0, 2.0]})
    work(folder, limit=1)
    torn = lines(folder)[-1][:-1][:kept]
    with open(folder.path / "journal.log", "ab") as file:
        file.write(torn)
    for _ in range(2):
        work(SweepFolder(folder.path), limit=1)
    assert list(states(SweepFolder(folder.path)).values()) == ["finished", "finished"]
    assert torn not in [line.rstrip(b"\n") for line in lines(folder)] or kept > 3


def test_a_full_disk_leaves_the_journal_as_it_was(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    folder = planned(seeds=2)
    before = lines(folder)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    folder.study  # noqa: B018
    with monkeypatch.context() as patched, pytest.raises(UserError, match="no space left"):
        patched.setattr(os, "fsync", full)
        folder.study._storage.set_trial_user_attr(folder._storage_id(0), "a", 1)
    assert lines(folder) == before


@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_an_aim_that_is_no_number_fails_its_trial_alone(planned: Planned, score: str) -> None:
    folder = planned(grid={"fake.score": [score, 2.0]})
    work(folder)
    first, second = folder.rows()
    assert (first.state, second.state) == ("failed", "finished")
    assert f"score={float(score)}; expected a finite number" in first.error
    assert folder.retry() == 1
    work(folder)
    assert [row.state for row in folder.rows()] == ["failed", "finished"]


def test_another_sweep_under_the_same_name_is_refused(planned: Planned, tmp_path: Path) -> None:
    folder = planned(seeds=2, name="s")
    file = tmp_path / "s.yaml"
    same, other = tmp_path / "same.yaml", tmp_path / "other.yaml"
    same.write_text(file.read_text())
    other.write_text(file.read_text() + "\noverrides: {fake.gain: 2.0}\n")
    SweepFolder.make(changed_sweep(same), folder.path)
    with pytest.raises(UserError, match=r"is the sweep of .*same.yaml; got .*other.yaml.*--name"):
        SweepFolder.make(changed_sweep(other), folder.path)
    same.unlink()  # moved
    SweepFolder.make(changed_sweep(other), folder.path)


def test_a_sampler_that_chooses_the_same_again_runs_it_once(planned: Planned) -> None:
    folder = planned(space={"fake.cfg": {"choices": [1.0]}}, trials=3)
    work(folder)
    rows = folder.rows()
    assert [row.state for row in rows] == ["finished"] * 3 and len(starts(folder)) == 1
    (group,) = summarize(rows, folder.sweep.measures)
    assert group.stats["score"].n == 1 and group.stats["score"].half is None
