"""The run folder: what is written comes back, also after a kill, and a wrong folder is refused in words."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from vargpt_lightning.runs import folder as results
from vargpt_lightning.runs.folder import RunFolder, find_runs, list_runs, now
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, different, read_json, read_jsonl, write_json, write_jsonl


@pytest.fixture
def run(tmp_path):
    return RunFolder.start(
        tmp_path / "one", command=["vargpt", "fit"], config="a.yaml", config_text="seed: 1\n", seed=1
    )


def test_start_records_where_the_run_comes_from(run):
    record = json.loads((run.path / "run.json").read_text())
    assert record["version"] == 1 and record["status"] == "running" and record["name"] == "one"
    assert record["command"] == ["vargpt", "fit"] and record["config"] == "a.yaml" and record["seed"] == 1
    assert record["versions"]["python"] and record["machine"]["cores"] >= 1
    assert run.config_text == "seed: 1\n"


def test_start_again_takes_the_run_up_and_keeps_its_beginning(run):
    run.add_duration("tokenizer", 2.0)
    begun = run.record["started"]
    again = RunFolder.start(run.path, command=["vargpt", "fit", "again"])
    again.add_duration("tokenizer", 3.0)
    assert again.record["started"] == begun and len(again.record["attempts"]) == 2
    assert again.record["durations"] == {"tokenizer": 5.0}


def test_start_goes_on_after_a_kill_before_the_first_record(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".run.json.123.tmp").write_text("{")
    assert RunFolder.start(tmp_path / "r").status == "running"


def test_end_sets_status_and_refuses_another_word(run):
    run.end("finished")
    assert run.status == "finished" and run.record["ended"]
    with pytest.raises(ValueError, match="interrupted"):
        run.end("stopped")


def test_a_dead_process_is_an_interrupted_run(run):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    attempts = run.record["attempts"]
    run.update(attempts=[{**attempts[0], "pid": child.pid}])
    assert run.status == "interrupted"
    run.update(attempts=[{**attempts[0], "pid": os.getpid()}])
    assert run.status == "running"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    run.update(attempts=[{**attempts[0], "pid": child.pid, "started": now()}])
    assert run.status == "interrupted", "dead, and not collected yet"
    child.wait()
    # The same number, but a process that is younger than the run.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        run.update(attempts=[{**attempts[0], "pid": child.pid, "started": "2020-01-01T00:00:00+00:00"}])
        assert run.status == "interrupted"
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such folder"),
        ({}, "run.json is missing"),
        ({"run.json": "{"}, "not readable as JSON"),
        ({"run.json": "[]"}, "no JSON object"),
        ({"run.json": '{"version": 99}'}, "version 99"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, content, words):
    folder = tmp_path / "x"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(UserError, match=words):
        RunFolder(folder)


def test_start_refuses_a_file_and_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="neither empty nor a run"):
        RunFolder.start(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        RunFolder.start(tmp_path / "notes.txt")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["notes.txt"]


def test_writing_is_one_step_and_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        write_json(file, {"new": 2})
    assert read_json(file) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_json_holds_no_number_that_json_cannot(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5], "c": str(tmp_path)}


def test_rows_survive_a_torn_last_line(tmp_path):
    file = tmp_path / "a.jsonl"
    append_jsonl(file, [{"id": 1}, {"id": 2}])
    with open(file, "a") as out:
        out.write('{"id": 3, "te')
    assert read_jsonl(file) == [{"id": 1}, {"id": 2}]
    append_jsonl(file, [{"id": 4}])
    assert read_jsonl(file) == [{"id": 1}, {"id": 2}, {"id": 4}]


def test_rows_come_back_whatever_their_texts_hold(tmp_path):
    rows = [{"text": f"a{sign}b"} for sign in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n")]
    append_jsonl(tmp_path / "a.jsonl", rows[:4])
    append_jsonl(tmp_path / "a.jsonl", rows[4:])
    assert read_jsonl(tmp_path / "a.jsonl") == rows
    write_jsonl(tmp_path / "b.jsonl", rows)
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "b.jsonl").read_bytes().replace(b"\n", b"\r\n"))
    assert read_jsonl(tmp_path / "b.jsonl") == read_jsonl(tmp_path / "c.jsonl") == rows


def test_stage_metrics_are_tidy_and_the_last_value_of_a_step_counts(run):
    stage = run.stage(1, "tokenizer")
    stage.log(1, {"train/loss": 2.0, "train/a,b": 1.0})
    stage.log(2, {"train/loss": 1.0})
    with open(stage.path / "metrics.csv", "a") as out:
        out.write("3,train/loss,0.1")  # of 0.1234
    assert stage.metrics()[-1] == (2, "train/loss", 1.0)
    stage.log(2, {"train/loss": 1.5})
    assert stage.metrics() == [(1, "train/loss", 2.0), (1, "train/a,b", 1.0), (2, "train/loss", 1.5)]
    stage.forget_after(1)
    assert stage.metrics() == [(1, "train/loss", 2.0), (1, "train/a,b", 1.0)]


def test_stages_come_in_order_and_keep_fields(run):
    run.stage(2, "base").update(status="running")
    run.stage(1, "tokenizer").update(status="finished", hash="x", seconds=3.0)
    run.stage(1, "tokenizer").update(seconds=4.0)
    first, second = run.stages()
    assert first.record == {"status": "finished", "hash": "x", "seconds": 4.0, "index": 1, "name": "tokenizer"}
    assert (second.index, second.name, second.status) == (2, "base", "running")
    (first.path / "samples").mkdir()
    (first.path / "samples" / "step-2.png").write_bytes(b"")
    assert [sheet.name for sheet in first.samples()] == ["step-2.png"]


def test_runs_are_found_and_listed_the_oldest_first(run, tmp_path):
    time.sleep(0.01)
    other = RunFolder.start(tmp_path / "sweep" / "two")
    other.update(started="2999-01-01T00:00:00+00:00", stage_count=5)
    other.stage(1, "tokenizer").update(status="finished")
    other.add_duration("tokenizer", 60.0)
    write_json(other.evaluation / "metrics.json", {"headline": [{"name": "identification@1", "text": "51 %"}]})
    other.end("finished")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    assert [found.name for found in find_runs(tmp_path)] == ["one", "two"]
    row = list_runs(tmp_path)[1]
    assert (row["name"], row["status"], row["stage"], row["seconds"]) == ("two", "finished", "tokenizer (1/5)", 60.0)
    assert row["headline"] == {"identification@1": "51 %"}
    assert find_runs(tmp_path / "nothing") == []


def test_reading_results_imports_no_torch():
    code = "import sys, vargpt_lightning.runs.folder; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_of_settings_that_differ_only_the_difference_is_told():
    before = {"cfg": 1.5, "top_k": 900, "text": {"seed": 0, "stop": []}}
    now_ = {"cfg": 3.0, "top_k": 900, "text": {"seed": 1, "stop": []}, "smooth": False}
    assert different(before, now_) == ("cfg=1.5, text.seed=0, no smooth", "cfg=3.0, text.seed=1, smooth=False")
    assert different(None, "agrees-2") == ("None", "agrees-2")


@pytest.mark.parametrize("broken", ["{", "[]", "[" * 100_000, "9" * 5000])
def test_a_run_with_a_broken_stage_is_left_out_and_told(tmp_path, broken: str):
    for name in ("good", "bad"):
        RunFolder.start(tmp_path / name).stage(1, "tokenizer").update(status="finished")
    file = tmp_path / "bad" / "stages" / "01-tokenizer" / "stage.json"
    file.write_text(broken)
    skipped: list[str] = []
    assert [row["name"] for row in list_runs(tmp_path, skipped.append)] == ["good"]
    assert len(skipped) == 1 and str(file) in skipped[0]
    (tmp_path / "bad" / "run.json").write_text(broken)
    assert [row["name"] for row in list_runs(tmp_path, skipped.append)] == ["good"]
    assert str(tmp_path / "bad" / "run.json") in skipped[1]
    assert [row["name"] for row in list_runs(tmp_path)] == ["good"]
