"""Tidy tables of many runs: what was written comes back, torn files too, fast, and without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vargpt_lightning.results import load_runs
from vargpt_lightning.runs.folder import SCHEMA_VERSION, RunFolder
from vargpt_lightning.runs.tables import TABLES
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, write_bytes, write_json


def make_run(path: Path, seed: int = 0, depth: int = 2) -> RunFolder:
    text = f"model:\n  decoder: {{depth: {depth}}}\nstages:\n- {{name: base, steps: {depth}}}\n"
    run = RunFolder.start(path, command=["vargpt"], config="a.yaml", config_text=text, seed=seed)
    run.stage(1, "base").log(1, {"train/loss": 2.0, "odd, name": 1.0})
    run.stage(1, "base").log(2, {"train/loss": 1.0})
    run.stage(1, "base").update(status="finished")
    run.add_duration("base", 3.0)
    run.end("finished")
    return run


def test_runs_and_metrics_come_back_tidy(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    second = make_run(tmp_path / "deep" / "b", seed=1)
    second.stage(1, "base").log(2, {"train/loss": 0.5})  # resumed: the step was taken again
    with open(second.stage(1, "base").path / "metrics.csv", "a") as out:
        out.write("3,train/loss,0.1")  # torn
    second.stage(2, "draw").log(1, {"train/loss": 9.0})
    loaded = load_runs(tmp_path)
    assert list(loaded.runs["run"]) == ["a", "deep/b"] and list(loaded.runs["seed"]) == [0, 1]
    assert list(loaded.runs["seconds"]) == [3.0, 3.0] and list(loaded.runs["stages_finished"]) == [1, 1]
    rows = [tuple(row) for row in loaded.metrics.itertuples(index=False)]
    assert list(loaded.metrics.columns) == ["run", "stage", "step", "name", "value"]
    assert rows == [
        ("a", "base", 1, "train/loss", 2.0), ("a", "base", 1, "odd, name", 1.0), ("a", "base", 2, "train/loss", 1.0),
        ("deep/b", "base", 1, "train/loss", 2.0), ("deep/b", "base", 1, "odd, name", 1.0),
        ("deep/b", "base", 2, "train/loss", 0.5), ("deep/b", "draw", 1, "train/loss", 9.0),
    ]  # fmt: skip


def test_evaluations_and_predictions_come_back_tidy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    accuracy = {"n": 9, "accuracy": 0.5, "low": 0.3, "high": 0.7}
    named = {"n": 8, "at_1": 4, "rate_1": 0.5, "low_1": 0.2, "high_1": 0.8, "chance_1": 0.1, "rate_5": 1.0}
    same = {"n": 4, "rate": 0.25, "low": 0.1, "high": 0.6}
    metrics = {
        "headline": [{"key": "kid", "value": 2.5}],
        "questions": {"colour": {"test": accuracy}},
        "drawings": {"train": {"kid_x1000": 2.5, "same_category": same, "identification": named}},
    }
    write_json(run.evaluation / "metrics.json", metrics)
    figures = {"accuracy": 0.6, "other": 0.1, "n": 5, "low": 0.4, "high": 0.8}
    result = {"headline": "accuracy", "figures": figures}
    write_json(run.path / "benchmarks/mme/result.lmms_eval_0.3.json", result)
    append_jsonl(run.evaluation / "answers.jsonl", [{"id": "q", "kind": "colour", "answer": "Red", "expected": "Blue"}])
    append_jsonl(run.evaluation / "drawings.jsonl", [{"id": "d", "prompt": "Draw", "text": "Here", "files": ["x.png"]}])
    append_jsonl(run.evaluation / "drawing_scores.jsonl", [{"id": "d", "rank": 3, "nearest": "pear"}])
    scored = {"id": "m", "output": "yes", "answer": "no", "category": "poster", "value": 1.0}
    append_jsonl(run.path / "benchmarks/mme/scores.lmms_eval_0.3.jsonl", [scored])
    loaded = load_runs(tmp_path)
    table = loaded.evaluations.set_index(["source", "name"])
    assert table.loc[("headline", "kid"), "value"] == 2.5
    asked = loaded.evaluations.query("source == 'questions'").set_index("split")
    for split in ("test", "heldout"):  # all held-out pictures are those of the one split here
        assert list(asked.loc[split, ["name", "value", "low", "high", "n"]]) == ["colour", 0.5, 0.3, 0.7, 9]
    assert table.loc[("drawings", "same_category"), "split"] == "train"
    rate = table.loc[("drawings", "identification_1")]
    assert [rate[key] for key in ("split", "value", "low", "high", "n")] == ["train", 0.5, 0.2, 0.8, 8]
    assert table.loc[("drawings", "identification_5"), "value"] == 1.0
    rate = table.loc[("benchmarks/mme", "accuracy")]
    assert [rate[key] for key in ("split", "value", "low", "n")] == ["lmms_eval_0.3", 0.6, 0.4, 5]
    assert [name for source, name in table.index if source == "benchmarks/mme"] == ["accuracy", "other"]
    answers = loaded.predictions.set_index("id")
    assert (answers.loc["q", "answer"], answers.loc["q", "expected"]) == ("Red", "Blue")
    assert (answers.loc["d", "source"], answers.loc["d", "answer"]) == ("drawings", "Here")
    assert (answers.loc["d", "rank"], answers.loc["d", "nearest"]) == (3, "pear")
    keys = ("source", "value", "answer", "expected", "kind", "split")
    assert [answers.loc["m", key] for key in keys] == ["benchmarks/mme", 1.0, "yes", "no", "poster", "lmms_eval_0.3"]


def test_runs_can_be_chosen(tmp_path: Path) -> None:
    for name, seed, depth in (("a", 0, 2), ("b", 1, 2), ("c", 1, 4)):
        make_run(tmp_path / name, seed, depth)
    RunFolder(tmp_path / "a").end("failed")

    def names(where: object) -> list[str]:
        return list(load_runs(tmp_path, where).runs["run"])

    assert names({"seed": 1}) == ["b", "c"] and names({"status": "failed"}) == ["a"]
    assert names({"model.decoder.depth": [4, 6]}) == ["c"] and names({"stages.base.steps": lambda n: n < 3}) == [
        "a",
        "b",
    ]
    assert names(lambda record: record["name"] == "b") == ["b"]
    assert list(load_runs(tmp_path).values("model.decoder.depth")["model.decoder.depth"]) == [2, 2, 4]


def test_older_runs_load_and_later_or_broken_ones_are_passed_over(tmp_path: Path) -> None:
    """The least that the first release wrote, and no more."""
    write_json(tmp_path / "first" / "run.json", {"name": "first", "status": "finished"})
    write_json(tmp_path / "later" / "run.json", {"version": 99})
    write_bytes(tmp_path / "broken" / "run.json", b"{")
    write_bytes(tmp_path / "first" / "stages" / "01-x" / "metrics.csv", b"step,name,value\r\n1,loss,0.5\r\n")
    loaded = load_runs(tmp_path)
    assert list(loaded.runs["run"]) == ["first"] and list(loaded.metrics["value"]) == [0.5]
    assert len(loaded.evaluations) == len(loaded.predictions) == 0


def test_nothing_is_an_empty_table_and_no_folder_an_error(tmp_path: Path) -> None:
    loaded = load_runs(tmp_path)
    assert len(loaded) == 0 and list(loaded.metrics.columns) == ["run", "stage", "step", "name", "value"]
    assert len(loaded.runs) == 0
    with pytest.raises(UserError, match="no such folder"):
        load_runs(tmp_path / "none")


def test_a_run_itself_can_be_loaded(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    assert list(load_runs(tmp_path / "a").runs["run"]) == ["."]


def test_runs_of_several_folders_are_one_table(tmp_path: Path) -> None:
    for name in ("here/a", "here/b", "there/a"):
        make_run(tmp_path / name)
    loaded = load_runs([tmp_path / "here", str(tmp_path / "there" / "a")])
    assert sorted(loaded.runs["run"]) == ["here/a", "here/b", "there/a"]
    assert set(loaded.metrics["run"]) == set(loaded.runs["run"])
    assert loaded.path("there/a") == tmp_path / "there" / "a"


def test_a_thousand_runs_take_no_time_worth_waiting_for(tmp_path: Path) -> None:
    source = make_run(tmp_path / "a")
    answers = [{"id": f"q{n}", "kind": "colour", "answer": "Red", "expected": "Blue"} for n in range(20)]
    append_jsonl(source.evaluation / "answers.jsonl", answers)
    for number in range(999):
        shutil.copytree(source.path, tmp_path / f"run{number}")
    began = time.process_time()
    loaded = load_runs(tmp_path)
    lengths = [len(table) for table in (loaded.runs, loaded.metrics, loaded.evaluations, loaded.predictions)]
    assert lengths == [1000, 3000, 0, 20000]
    assert time.process_time() - began < 3.0


def test_reading_tables_imports_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    append_jsonl(run.evaluation / "answers.jsonl", [{"id": "q"}])
    code = (
        "import sys; from vargpt_lightning.results import load_runs; loaded = load_runs(sys.argv[1]);"
        "tables = (loaded.runs, loaded.predictions, loaded.metrics, loaded.evaluations);"
        "assert [len(table) for table in tables] == [1, 1, 3, 0]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_the_columns_are_those_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text()
    loaded = load_runs(tmp_path)
    for name in TABLES:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` | `run`")]
        words = re.sub(r"\([^()]*\)", "", line)  # what a column means stands in brackets
        assert re.findall(r"`(\w+)`", words)[1:] == list(getattr(loaded, name).columns)
    assert f"## The run folder, version {SCHEMA_VERSION}" in text


def test_a_broken_record_of_a_stage_leaves_the_tables(tmp_path: Path) -> None:
    write_json(tmp_path / "r" / "run.json", {"version": 1, "name": "r", "status": "finished"})
    write_bytes(tmp_path / "r" / "stages" / "01-tokenizer" / "stage.json", b"[" * 100_000)
    row = load_runs(tmp_path).runs.iloc[0]
    assert (row["stage"], row["stages_finished"], row["stage_count"]) == ("tokenizer", 0, 1)


def test_broken_and_unlike_files_of_predictions_give_what_is_whole(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_run(tmp_path / name)
    rows = [{"id": "1", "answer": "2021-03-04", "expected": "5", "extra": {"x": [1]}}, {"id": "2", "answer": None}]
    append_jsonl(tmp_path / "a/evaluation/answers.jsonl", rows)
    write_bytes(tmp_path / "b/evaluation/answers.jsonl", b'{"id": "3", "answer": "x"}\n[]\n{"id": 4}\n{"id": "5", "an')
    append_jsonl(tmp_path / "c/benchmarks/vqa/scores.p.jsonl", [{"id": "6", "output": "y", "answer": ["y", "z"]}])
    append_jsonl(tmp_path / "a/benchmarks/vqa/scores.p.jsonl", [{"id": "7", "output": "n", "answer": "n", "kind": "?"}])
    table = load_runs(tmp_path).predictions
    assert sorted(map(str, table["id"])) == list("123467")
    by_id = table.set_index(table["id"].map(str))
    assert by_id.loc["1", "answer"] == "2021-03-04", "a text that looks like a date stays one"
    assert by_id.loc["2", ["answer", "expected"]].isna().all()
    assert (by_id.loc["3", "run"], by_id.loc["3", "source"]) == ("b", "questions")
    assert list(by_id.loc["6", "expected"]) == ["y", "z"] and by_id.loc["7", "expected"] == "n"
    assert list(by_id.loc["6", ["run", "source", "split"]]) == ["c", "benchmarks/vqa", "p"]


def test_a_value_logged_again_at_the_same_step_counts_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    stage = run.stage(1, "base")
    stage.log(3, {"val/loss": 4.0})
    stage.log(3, {"val/loss": 5.0, "train/loss": 0.25})
    table = load_runs(tmp_path).metrics.query("step == 3")
    assert list(zip(table["name"], table["value"], strict=True)) == [("val/loss", 5.0), ("train/loss", 0.25)]
