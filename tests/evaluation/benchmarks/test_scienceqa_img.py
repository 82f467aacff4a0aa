"""ScienceQA with pictures: four readings, keys in other types, and its two layouts."""

from __future__ import annotations

import copy
import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import scienceqa_img as scienceqa
from vargpt_lightning.utils.errors import UserError


def row(answer=1, **more):
    names = {"task": "closed choice", "grade": "grade4", "subject": "natural science"}
    return {"question": "What?", "choices": ["cat", "dog", "red"], "answer": answer, "hint": "", **names, **more}


def authors(folder, problems, ids=None, images="images"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems) if ids is None else ids, "val": []}))
    for id, problem in problems.items():
        if problem.get("image"):
            write_picture(folder / images / "test" / id / "image.png", "blue")
    return folder


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "lmms_eval", "release_0_3", "official", "lenient"),
    [
        (" B\n", "B", "B", "B", "B"),
        ("b", "B", "B", None, "B"),
        ("B.", "B", None, None, "B"),
        ("B. cat", "B", None, "B", "B"),
        ("b. dog", None, None, None, "B"),
        ("The answer is B.", None, None, "B", "B"),
        ("The answer is B", None, None, None, "B"),  # the script wants a character behind the letter
        ("The answer is A. The answer is B.", None, None, None, "B"),
        ("The answer is B.\nThe answer is C", None, None, "B", "C"),
        ("E", None, None, None, None),  # no such option
        ("dog", None, None, None, "B"),
        ("\0", None, None, None, None),
    ],
)
def test_the_four_readings(output, lmms_eval, release_0_3, official, lenient):
    readings = {"lmms_eval": lmms_eval, "lmms_eval_0.3": release_0_3, "official": official, "lenient": lenient}
    for protocol, letter in readings.items():
        found = scienceqa.score(output, row("ABC".index(letter or "A")), protocol)
        assert (found.parsed, found.value) == (letter, float(letter is not None))
        assert found.status == ("ok" if letter else "unparsed")


@pytest.mark.parametrize("answer", [1, "1", 1.0, "1.0", "B", " b "])
def test_keys_in_other_types(answer):
    assert scienceqa.score("B", row(answer)).value == 1
    assert scienceqa.score("A", row(answer)).value == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "without keys"),
        ("nan", "without keys"),
        (3, "answer is 3; expected one of A, B, C"),
        (-1, "answer is -1"),
    ],
)
def test_keys_that_are_none(answer, message):
    with pytest.raises(UserError, match=message):
        scienceqa.score("B", row(answer))


@pytest.mark.parametrize("hint", ["", "nan", None, float("nan")])
def test_hints_that_are_missing(hint):
    assert scienceqa.prompt(row(hint=hint), "plain") == "What?\nA. cat\nB. dog\nC. red"
    assert scienceqa.prompt(row(hint=hint), "qwen").startswith("Context: N/A\nQuestion: What?\n")
    assert scienceqa.aggregate([row(hint=hint)], [Score(1.0)])["context/without"] == 1


def test_prompts_in_other_styles():
    record = row(hint="Look.", choices="['cat', 'dog']")  # a list written as a string
    assert scienceqa.prompt(record, "qwen") == "Context: Look.\nQuestion: What?\nOptions: A. cat\nB. dog\nAnswer:"
    assert scienceqa.prompt(record, "plain") == "Context: Look.\nWhat?\nA. cat\nB. dog"
    with pytest.raises(UserError, match="style: 'vlmevalkit'"):
        scienceqa.prompt(record, "vlmevalkit")
    for choices in (None, "cat, dog", []):
        with pytest.raises(UserError, match=r"choices is .*; expected a list of options"):
            scienceqa.prompt(row(choices=choices))


def test_scoring_changes_no_record_and_knows_its_protocols():
    record = row("1", choices="['cat', 'dog']")
    before = copy.deepcopy(record)
    assert scienceqa.score("  ", record).status == "empty"
    assert record == before
    with pytest.raises(UserError, match="protocol: 'best'; expected one of lmms_eval, official, lenient"):
        scienceqa.score("A", record, "best")


def test_figures_by_subject_grades_and_context():
    records = [row(id="1"), row(id="2", grade="grade11", hint="Look."), row(id="3", subject="social science")]
    figures = scienceqa.aggregate(records, [Score(1.0), Score(0.0, None, "empty"), Score(0.0)])
    assert figures["accuracy"] == pytest.approx(1 / 3)
    assert (figures["accuracy/natural science"], figures["accuracy/social science"]) == (0.5, 0)
    assert (figures["grades/1-6"], figures["grades/7-12"]) == (0.5, 0)
    assert (figures["context/with"], figures["context/without"]) == (0, 0.5)
    assert (figures["n"], figures["empty"], figures["low"]) == (3, 1, 0)
    with pytest.raises(UserError, match="id: 1 ids occur more than once, the first are 1"):
        scienceqa.aggregate([row(id="1")] * 2, [Score(1.0)] * 2)
    with pytest.raises(UserError, match="1 for 3 records"):
        scienceqa.aggregate(records, [Score(1.0)])


# ---------------------------------------------------------------------------------------------------------------- data


def test_the_mirror_is_numbered(tmp_path):
    rows = [row(image=cell("blue")), row(2, hint=None, image=cell())]
    write_mirror(tmp_path / "ScienceQA-IMG" / "test-00000-of-00001.parquet", rows)
    found = scienceqa.load(tmp_path)
    assert [scienceqa.record_id(record) for record in found] == ["0", "1"]
    assert (scienceqa.record_id(found[1]), found[1]["hint"], found[1]["answer"]) == ("1", "", 2)
    assert scienceqa.pictures(found[0])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert "image" not in scienceqa.load(tmp_path, pictures=False)[1]


@pytest.mark.parametrize("pictures", [True, False])
def test_questions_without_a_picture_are_left_out_of_the_full_set_and_counted(tmp_path, pictures):
    rows = [row(image=None), row(image=cell()), row(image=None), row(2, image=cell("blue"))]
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    found = scienceqa.load(tmp_path, pictures=pictures)
    assert [scienceqa.record_id(record) for record in found] == ["1", "3"]
    assert found.skipped == ["2 questions without a picture"]
    assert ("image" in found[0]) == pictures


@pytest.mark.parametrize("images", ["images", "."])
def test_the_authors_layout(tmp_path, images):
    problems = {"7": row(image="image.png"), "5": row(image=None), "9": row("2", image="image.png"), "8": row()}
    authors(tmp_path, problems, ["9", "5", "7"], images)
    found = scienceqa.load(tmp_path)
    assert [(record["id"], record["answer"]) for record in found] == [("9", 2), ("7", 1)]
    assert scienceqa.pictures(found[0])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert found.skipped == ["1 questions without a picture"]
    assert len(scienceqa.load(tmp_path, pictures=False)) == 2


def test_authors_files_that_cannot_be_used(tmp_path):
    problems = {"7": row(image="image.png")}
    with pytest.raises(UserError, match=r"1 ids are not in problems\.json, the first is 3"):
        scienceqa.load(authors(tmp_path / "a", problems, ["7", "3"]))
    with pytest.raises(UserError, match="id: 1 ids occur more than once, the first are 7"):
        scienceqa.load(authors(tmp_path / "b", problems, ["7", "7"]))
    with pytest.raises(UserError, match="problem 7: hint missing; there are question"):
        scienceqa.load(authors(tmp_path / "c", {"7": {k: v for k, v in problems["7"].items() if k != "hint"}}))
    with pytest.raises(UserError, match="expected the name of a file inside"):
        list(scienceqa.load(authors(tmp_path / "d", {"7": row(image="../../../x.png")})))
    (tmp_path / "a" / "problems.json").write_bytes(b'{"7": "\xe9"}')
    with pytest.raises(UserError, match="not UTF-8"):
        scienceqa.load(tmp_path / "a")


def test_other_data_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"or problems\.json and pid_splits\.json; there is nothing"):
        scienceqa.load(tmp_path)
    write_mirror(tmp_path / "test-00000-of-00001.parquet", [{"question": "?", "answer": "A", "image": cell()}])
    with pytest.raises(UserError, match="choices, hint missing; there are question, answer, image"):
        scienceqa.load(tmp_path)
