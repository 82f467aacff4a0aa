"""Finished stages of other runs are reused by content, and a stage that is being trained is waited for."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.runs.locks import LeaseLock
from vargpt_lightning.training import reuse as reuse_stages
from vargpt_lightning.training.reuse import StageReuse

HASHES = ["h1", "h2", "h3"]
NAMES = ["a", "b", "c"]


def make_run(path: Path, *finished: str) -> RunFolder:
    """A run whose first stages are finished, with these hashes."""
    run = RunFolder.start(path)
    run.tokenizer.mkdir()
    (run.tokenizer / "tokenizer.json").write_text("words")
    for index, content in enumerate(finished):
        stage = run.stage(index + 1, NAMES[index])
        stage.log(1, {"loss": 1.0})
        stage.weights.write_text(f"weights of {content}")
        stage.update(hash=content, status="finished", steps=5)
    return run


def test_the_longest_beginning_is_taken_over_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    donor = make_run(tmp_path / "runs" / "donor", "h1", "h2", "other")
    make_run(tmp_path / "runs" / "short", "h1")
    run = RunFolder.start(tmp_path / "new" / "run")
    StageReuse(run, HASHES, [tmp_path / "runs"]).take_first(NAMES)
    first, second = run.stages()
    assert (first.status, second.record["hash"], second.record["steps"]) == ("finished", "h2", 5)
    assert second.weights.read_text() == "weights of h2"
    assert second.record["taken_from"] == str((donor.path / "stages" / "02-b").resolve())
    assert (run.tokenizer / "tokenizer.json").read_text() == "words"
    assert second.metrics() == donor.stage(2, "b").metrics()
    second.log(2, {"loss": 9.0})
    assert len(donor.stage(2, "b").metrics()) == 1, "the donor's metrics are its own"
    if hasattr(os, "link"):
        assert second.weights.stat().st_ino == donor.stage(2, "b").weights.stat().st_ino, "weights are not paid twice"


def test_what_is_not_finished_or_has_lost_its_weights_is_not_taken(tmp_path: Path) -> None:
    donor = make_run(tmp_path / "donor", "h1", "h2")
    donor.stage(1, "a").update(status="running")
    run = RunFolder.start(tmp_path / "run")
    reuse = StageReuse(run, HASHES, [tmp_path / "donor"])
    reuse.take_first(NAMES)
    assert run.stages() == []
    donor.stage(1, "a").update(status="finished")
    donor.stage(1, "a").weights.unlink()
    assert not reuse.take(0, run.stage(1, "a"))


def test_without_folders_nothing_is_looked_for_or_claimed(tmp_path: Path) -> None:
    make_run(tmp_path / "donor", "h1")
    run = RunFolder.start(tmp_path / "run")
    reuse = StageReuse(run, HASHES, [])
    reuse.take_first(NAMES)
    with reuse.turn(0):
        assert not reuse.take(0, run.stage(1, "a"))
    assert run.stages() == [] and not (tmp_path / ".stages").exists()


def test_the_same_stage_is_trained_by_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse_stages, "WAIT", 0.02)
    run, order = RunFolder.start(tmp_path / "one"), list[str]()
    other = LeaseLock.acquire(tmp_path / ".stages" / "h1")
    assert other is not None

    def wait() -> None:
        with StageReuse(run, HASHES, [tmp_path]).turn(0):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    order.append("first")
    other.release()
    thread.join(30)
    assert order == ["first", "second"]
