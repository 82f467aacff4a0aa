"""The run's own questions as a benchmark: the run's rule, its kinds, and the folder that it leaves."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.benchmarks.small_files import write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.base.exact_match import score_kinds
from vargpt_lightning.evaluation.benchmarks import openmoji
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark
from vargpt_lightning.evaluation.reports.benchmarks import build_benchmark_report
from vargpt_lightning.evaluation.systems.files import Predictions
from vargpt_lightning.utils.errors import UserError

NAMES = ["red apple", "dog", "cat", "lion"]


def question(id_, kind, answer, picture="p1", split="test", options=()):
    row = {"id": id_, "kind": kind, "prompt": "What is it?", "answer": answer, "picture": picture}
    return {**row, "split": split, "options": list(options)}


def folder(root, questions, pictures=("p1",)):
    root.mkdir(parents=True, exist_ok=True)
    (root / "asked.json").write_text(json.dumps({"settings": {}, "questions": questions}))
    rows = [{"id": id_, "hash": "0", "files": [f"real/{id_}.png"]} for id_ in pictures]
    (root / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for id_ in pictures:
        write_picture(root / "real" / f"{id_}.png")
    return root


@pytest.mark.parametrize(
    ("kind", "answer", "output", "exact", "lenient"),
    [
        ("category", "Food & Drink", "food and drink.", 1, 1),
        ("category", "Food & Drink", "This is food and drink", 0, 1),
        ("category", "Food & Drink", "It is not food and drink", 0, 0),
        ("colour", "Red", "It is red or blue", 0, 0),
        ("colour", "Red", "reddish", 0, 0),
        ("yesno", "Yes", "Yes, it is.", 0, 1),
        ("yesno", "No", "The answer is no", 0, 1),
        ("choice", "A", "a", 1, 1),
        ("choice", "A", "(A)", 1, 1),
        ("choice", "A", "red apple (A)", 1, 1),
        ("choice", "A", "dog (B)", 0, 0),
        ("choice", "A", "A) red apple", 0, 1),
        ("choice", "A", "The answer is A.", 0, 1),
        ("choice", "A", "It is a red apple", 0, 1),
        ("choice", "A", "red apple or dog", 0, 0),
        ("choice", "B", "A) dog", 0, 0),
        ("name", "Red apple", "", 0, 0),
    ],
)
def test_the_rule_and_its_lenient_form(kind, answer, output, exact, lenient):
    record = question("1", kind, answer, options=NAMES if kind == "choice" else ())
    assert openmoji.score(output, record).value == exact
    assert openmoji.score(output, record, "official") == openmoji.score(output, record)
    assert openmoji.score(output, record, "exact") == openmoji.score(output, record)
    assert openmoji.score(output, record, "lenient").value == lenient


def test_statuses():
    assert openmoji.score("...", question("1", "name", "Dog")).status == "empty"
    assert openmoji.score("maybe", question("1", "yesno", "Yes")).status == "unparsed"
    assert openmoji.score("No", question("1", "yesno", "Yes")) == Score(0.0, "no", "ok")
    assert openmoji.score("BC", question("1", "choice", "B")).status == "unparsed"
    assert openmoji.score("dog (B)", question("1", "choice", "A")) == Score(0.0, "B")
    assert openmoji.score("cat", question("1", "name", "Dog")).status == "ok"
    with pytest.raises(UserError, match="'strict'"):
        openmoji.score("cat", question("1", "name", "Dog"), "strict")


def test_kinds_count_alike_however_many_questions_they_have():
    records = [question("1", "name", "Dog"), *(question(f"c{n}", "colour", "Red") for n in range(4))]
    outputs = ["dog", "red", "blue", "blue", "blue"]
    scores = [openmoji.score(output, row) for output, row in zip(outputs, records, strict=True)]
    found = openmoji.aggregate(records, scores)
    assert next(iter(found)) == openmoji.HEADLINE and found["accuracy"] == pytest.approx((1 + 0.25) / 2)
    assert (found["accuracy/name"], found["accuracy/colour"], found["micro"]) == (1.0, 0.25, 0.4)
    # only the colours vary: half of their own interval
    assert 0.5 <= found["low"] < 0.625 < found["high"] <= 1.0
    rows = [
        {"kind": row["kind"], "split": "test", "expected": row["answer"], "answer": output}
        for row, output in zip(records, outputs, strict=True)
    ]
    assert {kind: figures["test"]["accuracy"] for kind, figures in score_kinds(rows).items()} == {
        kind: found[f"accuracy/{kind}"] for kind in ("name", "colour")
    }


@pytest.mark.parametrize("inside", ["", "evaluation"])
def test_a_run_or_its_evaluation(tmp_path, inside):
    asked = [question("1", "name", "Dog"), question("2", "name", "Dog", split="train"), question("3", "yesno", "No")]
    folder(tmp_path / "evaluation", asked)
    rows = openmoji.load(tmp_path / inside)
    assert [openmoji.record_id(row) for row in rows] == ["1", "3"]
    assert rows.skipped == ["1 questions about pictures that were trained on"]
    assert openmoji.pictures(rows[0])[0].open().size == (4, 3)
    assert openmoji.prompt(rows[0]) == "What is it?"
    assert openmoji.prompt(rows[0], "short").endswith("single word or phrase.")
    assert "image" not in openmoji.load(tmp_path / inside, pictures=False)[0]


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(UserError, match=r"asked.json or evaluation/asked.json"):
        openmoji.load(tmp_path)
    with pytest.raises(UserError, match="none of its 1 questions is about a held-out picture"):
        openmoji.load(folder(tmp_path / "train", [question("1", "name", "Dog", split="train")]))
    with pytest.raises(UserError, match="'1' is there twice"):
        openmoji.load(folder(tmp_path / "twice", [question("1", "name", "Dog")] * 2))
    with pytest.raises(UserError, match="the kind is 'draw'"):
        openmoji.load(folder(tmp_path / "kind", [question("1", "draw", "Dog")]))
    with pytest.raises(UserError, match="1 pictures missing, such as p9"):
        openmoji.load(folder(tmp_path / "picture", [question("1", "name", "Dog", picture="p9")]))
    with pytest.raises(UserError, match="question 1: answer, picture, split, options missing"):
        openmoji.load(folder(tmp_path / "column", [{"id": "1", "kind": "name", "prompt": "?"}]))


def test_results_name_our_own_rule_and_say_what_a_question_is_about(tmp_path):
    data = folder(tmp_path / "run", [question("1F34E-colour-0", "colour", "red")])
    (data / "pictures.jsonl").write_text(json.dumps({"id": "p1", "files": ["real/p1.png"], "name": "red apple"}) + "\n")
    (tmp_path / "said.jsonl").write_text(json.dumps({"id": "1F34E-colour-0", "output": "Red."}) + "\n")
    settings = BenchmarkSettings(protocols=("lmms_eval", "official", "lenient"))
    out = tmp_path / "out"
    results = run_benchmark(Predictions(tmp_path / "said.jsonl"), openmoji, data, out, settings)
    assert list(results) == ["exact", "lenient"] and results["exact"]["protocol"] == "exact"
    assert sorted(file.name for file in out.glob("openmoji/result.*")) == ["result.exact.json", "result.lenient.json"]
    build_benchmark_report([out], out, {"openmoji": data})
    assert "lmms_eval" not in (out / "index.html").read_text() + (out / "openmoji.html").read_text()
    page = (out / "openmoji.html").read_text()
    assert ">red apple</span>" in page and ">1F34E-colour-0<" not in page and ">colour</span>" in page
