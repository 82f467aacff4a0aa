"""`vargpt evaluate MODEL --benchmarks`: from the command line to figures, on MME and POPE in small."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.evaluation.squares import png
from tests.ranks import run_ranks, said
from vargpt_lightning.cli import main
from vargpt_lightning.evaluation.base.exact_match import is_right
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def write_benchmarks(folder: Path) -> Path:
    """MME with one pair in every subtask, and POPE with two questions in each category."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vargpt_lightning.evaluation.benchmarks import mme, pope

    image = {"bytes": png("red"), "path": None}
    pairs = [
        {"question_id": f"{task}/1.png", "image": image, "question": f"Is it {colour}? Please answer yes or no.",
         "answer": answer, "category": task}
        for task in mme.SUBTASKS for colour, answer in (("red", "Yes"), ("blue", "No"))
    ]  # fmt: skip
    asked = [
        {"id": str(number), "question_id": str(number), "question": f"Is there a {thing}?", "answer": "yes",
         "image_source": "x", "category": category, "image": image}
        for category in pope.CATEGORIES for number, thing in enumerate(("dog", "cat"))
    ]  # fmt: skip
    for name, rows in (("mme", pairs), ("pope", asked)):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "test-00000-of-00001.parquet")
    return folder


class Agrees:
    """Says yes to everything but blue."""

    name, digest, settings = "agrees", "agrees-1", {"precision": "none"}

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.asked: list[str] = []

    def answer(self, requests: Any) -> list[str]:
        self.asked += [request.id for request in requests]
        return ["No" if "blue" in request.prompt else "Yes" for request in requests]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> list[Agrees]:
    """The systems that the command has opened; MODEL is anything."""
    from vargpt_lightning.evaluation.systems import open as systems

    opened: list[Agrees] = []

    def open_system(text: str, **options: Any) -> Agrees:
        opened.append(Agrees({"model": text, **options}))
        return opened[-1]

    monkeypatch.setattr(systems, "open_system", open_system)
    return opened


def result(out: Path, name: str, protocol: str = "lmms_eval") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name / f"result.{protocol}.json").read_text())
    return found


def evaluate(*words: object) -> int:
    return main(["evaluate", "some/model", *map(str, words)])


def test_benchmarks_are_asked_scored_and_reported(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    assert (
        evaluate("--benchmarks", "mme,pope", "--data", data, "--out", tmp_path, "--protocol", "lmms_eval,official") == 0
    )
    (system,) = systems
    assert len(system.asked) == 28 + 6 and system.options == {"model": "some/model"}
    assert result(tmp_path, "mme")["figures"]["perception"] == 2000
    assert result(tmp_path, "mme", "official")["figures"]["cognition"] == 800
    assert result(tmp_path, "pope")["figures"]["accuracy"] == 1.0 and result(tmp_path, "pope")["model"] == "agrees"
    said = capsys.readouterr()
    assert "2000.0" in said.out and "POPE" in said.out and "100.0" in said.out
    assert "MME: 28/28, took" in said.err
    assert f"report: {tmp_path / 'index.html'}" in said.out and (tmp_path / "index.html").is_file()


def test_all_takes_what_has_data_and_names_the_others(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    assert evaluate("--benchmarks", "all", "--data", data, "--out", tmp_path, "--limit", "4") == 0
    assert result(tmp_path, "mme")["limit"] == 4 and result(tmp_path, "mme")["asked"] == 4
    assert len({id_.rsplit("/", 1)[0] for id_ in systems[0].asked[:4]}) == 2, "whole pairs"
    said = capsys.readouterr().out
    assert "left out, because there are no data:" in said and "vqav2" in said
    assert "limit 4: 4 of 28" in said and "partial" in said


def test_the_only_benchmark_may_be_the_folder_itself(data: Path, systems: Any, tmp_path: Path) -> None:
    assert evaluate("--benchmarks", "pope", "--data", data / "pope", "--out", tmp_path) == 0
    assert result(tmp_path, "pope")["figures"]["n"] == 6


def test_options_reach_the_system_and_the_questions(data: Path, systems: Any, tmp_path: Path) -> None:
    more = ["--device", "cpu", "--dtype", "float16", "--option", "concurrency=8", "--option", "template=a=b"]
    words = ["--benchmarks", "pope", "--data", data, "--out", tmp_path, "--style", "plain", "--batch-size", "5"]
    assert evaluate(*words, *more, "--max-tokens", "7") == 0
    expected = {"device": "cpu", "dtype": "float16", "concurrency": 8, "template": "a=b", "model": "some/model"}
    assert systems[0].options == expected
    found = result(tmp_path, "pope")
    assert (found["style"], found["max_new_tokens"], found["asking"]["batch_size"]) == ("plain", 7, 5)
    prompts = {row["prompt"] for row in read_rows(tmp_path / "pope/outputs/0-0.jsonl")}
    assert prompts == {"Is there a dog?", "Is there a cat?"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--benchmarks mmee --data DATA", "benchmark: 'mmee'; there are"),
        ("--benchmarks , --data DATA", "--benchmarks: ','; expected all, or some of"),
        ("--benchmarks mme", "--data DIR is not given"),
        ("--benchmarks all", "--data DIR is not given"),
        ("--benchmarks mme,gqa --data DATA", "expected a folder named gqa; there is mme, pope"),
        ("--benchmarks mme --data DATA/none", "DATA/none: there is no such folder"),
        ("--benchmarks gqa --data DATA/mme", "GQA"),
        ("--benchmarks all --data DATA/mme", "expected folders named"),
        ("--benchmarks mme --data DATA --limit 0", "--limit: '0'; expected a whole number from 1 to"),
        ("--benchmarks mme --data DATA --batch-size many", "'many'; expected a whole number, 1 or more, or auto"),
        ("--benchmarks mme --data DATA --protocol strict", "protocol: 'strict'; expected one of"),
        ("--benchmarks mme --data DATA --style dutch", "dutch"),
        ("--benchmarks mme --data DATA --option concurrency", "expected KEY=VALUE"),
        ("--benchmarks mme --data DATA --cfg 3 --report-only", "--report-only, --cfg have no meaning with"),
        ("--limit 3 --data DATA", "--data, --limit need --benchmarks"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    words: str, said: str, data: Path, systems: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*words.replace("DATA", str(data)).split()) == 2
    message = capsys.readouterr().err
    assert said.replace("DATA", str(data)) in message and message.count("\n") == 1
    assert systems == []


def test_a_benchmark_without_figures_stops_no_other(systems: Any, tmp_path: Path, capsys: Any) -> None:
    import pyarrow.parquet as pq

    data = write_benchmarks(tmp_path / "data")
    file = data / "mme/test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    words = ["--benchmarks", "mme,pope", "--data", data, "--out", tmp_path / "out"]
    assert evaluate(*words) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("vargpt: error: MME: 1 of 14 pictures do not have two questions")
    assert result(tmp_path / "out", "pope")["figures"]["n"] == 6 and "POPE" in said.out
    assert (tmp_path / "out/pope.html").is_file() and not (tmp_path / "out/mme/result.lmms_eval.json").exists()
    assert evaluate(*words, "--allow-partial") == 0
    assert systems[1].asked == [] and result(tmp_path / "out", "mme")["partial"]


def test_a_key_that_is_none_is_told_before_anything_is_asked(systems: Any, tmp_path: Path, capsys: Any) -> None:
    from tests.evaluation.benchmarks.small_files import cell, write_mirror

    rows = [
        {"index": n, "question": "?", "hint": None, "answer": key, "A": "a", "B": "b", "C": None, "D": None,
         "category": "c", "L2-category": "c", "image": cell()}
        for n, key in enumerate(("A", "B", None, "A"))
    ]  # fmt: skip
    write_mirror(tmp_path / "mmbench/en/dev-00000-of-00001.parquet", rows)
    assert evaluate("--benchmarks", "mmbench", "--data", tmp_path) == 2
    assert "mmbench, question '2': record: answer is None" in capsys.readouterr().err
    assert systems == []


def test_guesses_are_for_letters(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    from tests.evaluation.benchmarks.small_files import cell, write_mirror

    words = ["--data", data, "--out", tmp_path / "out", "--guess", "random"]
    assert evaluate("--benchmarks", "mme,pope", *words) == 2
    assert "--guess: has no meaning for mme, pope" in capsys.readouterr().err and systems == []
    both = write_benchmarks(tmp_path / "data")
    row = {"question_id": "1", "question": "?", "answer": "A", "data_type": "image", "question_type_id": 1}
    row |= {f"choice_{letter}": letter for letter in "abcd"} | {"image": [cell()]}
    write_mirror(both / "seedbench/data/test-00000-of-00001.parquet", [row])
    words[1] = both
    assert evaluate("--benchmarks", "pope,seedbench", *words) == 0
    assert result(tmp_path / "out", "seedbench")["scoring"] == {"guess": "random"}
    assert result(tmp_path / "out", "seedbench")["figures"]["guessed"] == 1
    assert result(tmp_path / "out", "pope")["scoring"] == {}


def test_earlier_rules_are_for_those_that_changed(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    from tests.evaluation.benchmarks.small_files import cell, write_mirror

    words = ["--out", tmp_path / "out", "--protocol", "lmms_eval,lmms_eval_0.3"]
    assert evaluate("--benchmarks", "pope", "--data", data, *words) == 2
    assert "protocol: 'lmms_eval_0.3'; pope has lmms_eval, official, lenient" in capsys.readouterr().err
    assert systems == []
    row = {"question": "?", "choices": ["Yes", "b"], "answer": 0, "hint": "", "image": cell()}
    write_mirror(tmp_path / "data/scienceqa_img/ScienceQA-IMG/test-00000-of-00001.parquet", [row])
    assert evaluate("--benchmarks", "scienceqa_img", "--data", tmp_path / "data", *words) == 0
    assert result(tmp_path / "out", "scienceqa_img", "lmms_eval_0.3")["figures"]["unparsed"] == 1


@pytest.mark.parametrize("change", [{"name": "other"}, {"digest": "agrees-2"}, {"settings": {"precision": "bfloat16"}}])
def test_a_folder_of_another_systems_results_is_refused(
    change: dict[str, Any], data: Path, systems: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["--benchmarks", "mme,pope", "--data", data, "--out", tmp_path / "out"]
    assert evaluate(*words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for name, value in change.items():
        monkeypatch.setattr(Agrees, name, value)
    capsys.readouterr()
    assert evaluate(*words) == 2
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("vargpt: error:"))
    assert f"{tmp_path / 'out' / 'mme'} holds results of the" in said and "expected another --out, or --replace" in said
    if "settings" in change:
        assert "of the settings precision=none, and these are of precision=bfloat16;" in said
    assert systems[1].asked == []
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert evaluate(*words, "--limit", "4", "--replace") == 0
    assert result(tmp_path / "out", "mme")["asked"] == 4
    assert len(systems[2].asked) == (0 if "name" in change else 8)  # the same weights by another name say the same


def test_no_benchmark_is_asked_where_one_of_them_is_anothers(
    data: Path, systems: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert evaluate("--benchmarks", "pope", "--data", data, "--out", tmp_path) == 0
    monkeypatch.setattr(Agrees, "digest", "agrees-2")
    assert evaluate("--benchmarks", "mme,pope", "--data", data, "--out", tmp_path) == 2
    assert f"{tmp_path / 'pope'} holds results of the system" in capsys.readouterr().err
    assert systems[1].asked == [] and not (tmp_path / "mme").exists()


def test_pictures_that_are_drawn_have_a_command_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vargpt_lightning.commands.evaluate_images")
    asked: list[list[str]] = []
    module.main = lambda argv: asked.append(argv) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["evaluate", "images", "prompts.jsonl", "--out", "x"]) == 0
    assert asked == [["prompts.jsonl", "--out", "x"]]


def test_a_run_is_asked_for_real_by_two_processes(finished_run: Path, data: Path, tmp_path: Path) -> None:
    """The tiny model of these tests through the command line, alone and under torchrun."""
    words = ["evaluate", str(finished_run), "--benchmarks", "pope", "--data", str(data), "--max-tokens", "4"]
    words += ["--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    log = tmp_path / "log"
    assert run_ranks(2, log, main, [*words, "--out", str(tmp_path / "two")]) == [0, 0], said(log, 2)
    one, two = result(tmp_path / "one", "pope"), result(tmp_path / "two", "pope")
    assert one["figures"] == two["figures"] and one["digest"] == two["digest"] and one["settings"] == two["settings"]
    rows = [list(read_rows(tmp_path / name / "pope/scores.lmms_eval.jsonl")) for name in ("one", "two")]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    assert two["asking"]["processes"] == 2 and said(log, 2).count("POPE  ") == 1


# --------------------------------------------------------------------------------------------- the end of a demo run


def test_a_run_ends_with_its_own_questions_as_a_benchmark(debug_run: Path) -> None:
    run = RunFolder(debug_run)
    found = result(debug_run / "benchmarks", "openmoji", "exact")
    held_out = [row for row in run.answers() if row["split"] != "train"]
    assert found["figures"]["n"] == len(held_out) > 0 and found["asking"]["answers"]["missing"] == 0
    assert (found["model"], found["digest"]) == (
        "debug",
        json.loads((run.evaluation / "inputs.json").read_text())["model"],
    )
    rows = {row["id"]: row for row in read_rows(debug_run / "benchmarks/openmoji/scores.exact.jsonl")}
    assert {row["id"]: row["answer"] for row in held_out} == {id_: row["output"] for id_, row in rows.items()}
    right = {row["id"] for row in held_out if is_right(row["answer"], row["expected"])}
    assert right == {id_ for id_, row in rows.items() if row["value"] == 1}
    assert 'href="benchmarks/index.html"' in run.report.read_text() and run.benchmark_report.is_file()
    assert (debug_run / "benchmarks/openmoji.html").is_file()


def test_nothing_is_asked_twice_and_the_page_is_named(debug_run: Path, tmp_path: Path, capsys: Any) -> None:
    copied = Path(shutil.copytree(debug_run, tmp_path / "debug"))
    shutil.rmtree(copied / "benchmarks")
    assert main(["evaluate", str(copied), "--report-only"]) == 0
    assert f"benchmarks: {copied / 'benchmarks/index.html'}" in capsys.readouterr().out
    again, before = (result(each / "benchmarks", "openmoji", "exact") for each in (copied, debug_run))
    assert again["figures"] == before["figures"]


def test_a_run_without_such_questions_says_so(debug_run: Path, tmp_path: Path, capsys: Any) -> None:
    copied = Path(shutil.copytree(debug_run, tmp_path / "debug"))
    shutil.rmtree(copied / "benchmarks")
    asked = json.loads((copied / "evaluation/asked.json").read_text())
    kept = [row | {"split": "train"} for row in asked["questions"]]
    (copied / "evaluation/asked.json").write_text(json.dumps(asked | {"questions": kept}))
    assert main(["evaluate", str(copied), "--report-only"]) == 0
    said = capsys.readouterr().out
    assert "benchmarks: none" in said and "held-out" in said and "index.html" not in said
    assert "benchmarks/index.html" not in (copied / "report.html").read_text()
