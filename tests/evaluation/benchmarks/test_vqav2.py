"""VQAv2: the three ways of normalising, accuracy by type of answer, its two layouts and bad input."""

from __future__ import annotations

import copy
import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import vqav2
from vargpt_lightning.utils.errors import UserError


def people(keys):
    return [{"answer": key, "answer_confidence": "yes", "answer_id": place} for place, key in enumerate(keys, 1)]


def question(number, keys=("yes",) * 10, **more):
    row = {"question_type": "is this", "multiple_choice_answer": keys[0], "answers": people(keys)}
    row |= {"image_id": 42 + number, "answer_type": "yes/no", "question_id": number, "question": "Is it red?"}
    return {**row, **more}


def mirror(root, rows, split="validation"):
    write_mirror(root / "data" / f"{split}-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])
    return root


def authors(root, rows, subtype="val2014", folder="val2014", annotations=True):
    root.mkdir(parents=True, exist_ok=True)
    asked = [{name: row[name] for name in ("image_id", "question", "question_id")} for row in rows]
    info = {"description": "This is v2.0 of the VQA dataset."}
    questions = {"info": info, "data_subtype": subtype, "questions": asked}
    (root / f"v2_OpenEnded_mscoco_{subtype}_questions.json").write_text(json.dumps(questions))
    if annotations:
        answered = [{name: value for name, value in row.items() if name != "question"} for row in reversed(rows)]
        content = {"info": info, "annotations": answered}
        (root / f"v2_mscoco_{subtype}_annotations.json").write_text(json.dumps(content))
    for row in rows:
        write_picture(root / folder / f"COCO_{subtype.replace('-dev', '')}_{row['image_id']:012d}.jpg", "blue")
    return root


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "keys", "lmms_eval", "official", "old", "lenient"),
    [
        ("Yes", ["yes"] * 10, 1, 0, 1, 1),  # the authors' code takes ten equal keys as they are
        ("Yes", ["yes"] * 9 + ["no"], 1, 1, 1, 1),
        ("yes\n", ["yes"] * 10, 1, 1, 1, 1),
        ("t-shirt", ["t-shirt"] * 10, 1, 1, 0, 1),  # lmms-eval 0.3 normalises the output alone
        ("none", ["none"] * 10, 1, 1, 0, 1),
        ("none", ["none"] * 9 + ["0"], 1, 1, 1, 1),
        ("2 , 3", ["2,3"] * 5 + ["2"] * 5, 0, 0, 0, 0),
        ("cheese,tomato", ["cheese, tomato"] * 4 + ["x"] * 6, 1, 1, 0, 0),  # tokenising deletes the comma
        ("1,,000 t-shirt", ["1 000 t shirt"] * 5 + ["x"] * 5, 0, 1, 0, 0),  # two commas are no number to the authors
        ("The answer is two.", ["2"] * 10, 0, 0, 0, 1),
        ("No, it is not.", ["no"] * 10, 0, 0, 0, 1),
        ("what is the dogs' colour", ["dog"] * 10, 0, 0, 0, 0),
    ],
)
def test_protocols(output, keys, lmms_eval, official, old, lenient):
    record = question(1, keys)
    before = copy.deepcopy(record)
    protocols = ("lmms_eval", "official", "lmms_eval_0.3", "lenient")
    found = [vqav2.score(output, record, protocol).value for protocol in protocols]
    assert found == [lmms_eval, official, old, lenient] and record == before


def test_accuracy_by_type_of_answer_under_each_protocol():
    records = [question(n, answer_type=kind) for n, kind in enumerate(("yes/no", "number", "number", "other"))]
    scores = [Score(value) for value in (1.0, 0.3, 0.6, 0.0)]
    for protocol in ("lmms_eval", "official", "lmms_eval_0.3", "lenient"):
        figures = vqav2.aggregate(records, scores, protocol)
        assert figures["accuracy"] == pytest.approx(0.475)
        assert figures["accuracy/yes/no"] == 1 and figures["accuracy/other"] == 0
        assert figures["accuracy/number"] == pytest.approx(0.45)
    with pytest.raises(UserError, match="expected one of lmms_eval, official, lenient, lmms_eval_0"):
        vqav2.aggregate(records, scores, "lmms_eval_0.4")


def test_styles():
    record = question(1, question="Is the USA red?")
    assert vqav2.prompt(record) == "Is the USA red?\nAnswer the question using a single word or phrase."
    assert vqav2.prompt(record, "plain") == "Is the USA red?"
    assert vqav2.prompt(record, "qwen") == "Is the USA red? Answer:"
    with pytest.raises(UserError, match="style: 'blip'; expected one of llava, plain, qwen"):
        vqav2.prompt(record, "blip")


# ------------------------------------------------------------------------------------------------------------- layouts


def test_both_layouts_give_the_same_rows(tmp_path):
    rows = [question(n, ["yes"] * 4 + ["t-shirt"] * 6) for n in (7, 5, 6)]
    loaded = [vqav2.load(mirror(tmp_path / "a", rows)), vqav2.load(authors(tmp_path / "b", rows))]
    for found in loaded:
        assert len(found) == 3 and [vqav2.record_id(row) for row in found] == ["7", "5", "6"]
        assert [{**row, "image": None} for row in found] == [{**row, "image": None} for row in rows]
        assert found[1]["question_id"] == 5
    assert [vqav2.pictures(found[0])[0].open().getpixel((0, 0)) for found in loaded] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("write", [mirror, authors])
def test_scoring_needs_no_pictures(tmp_path, write):
    rows = vqav2.load(write(tmp_path, [question(1)]), pictures=False)
    (row,) = rows
    assert "image" not in row and vqav2.score("yes", row).value == 1
    with pytest.raises(UserError, match="question 1 has no picture"):
        vqav2.pictures(row)


@pytest.mark.parametrize("folder", ["val2014", "COCO_val2014", "images/val2014", "."])
def test_where_the_pictures_may_be(tmp_path, folder):
    rows = vqav2.load(authors(tmp_path, [question(1)], folder=folder))
    assert vqav2.pictures(rows[0])[0].open().size == (4, 3)


def test_a_missing_picture_is_named_when_it_is_opened(tmp_path):
    root = authors(tmp_path, [question(1), question(2)])
    (root / "val2014" / "COCO_val2014_000000000044.jpg").unlink()
    rows = vqav2.load(root)
    assert vqav2.pictures(rows[0])[0].open()
    with pytest.raises(UserError, match=r"COCO_val2014_000000000044.jpg"):
        vqav2.pictures(rows[1])[0].open()


@pytest.mark.parametrize("split", ["test", "testdev"])
def test_a_test_split_of_the_mirror_can_be_asked_not_scored(tmp_path, split):
    rows = [{"question_id": n, "question": "Is it?", "image_id": 3} for n in (1, 2)]
    found = vqav2.load(mirror(tmp_path, rows, split))
    assert vqav2.prompt(found[0]) and vqav2.pictures(found[0])[0].open()
    with pytest.raises(UserError, match="question 1 has no answers to score with; a test split can be asked"):
        vqav2.score("yes", found[0])


def test_a_test_split_of_the_authors_can_be_asked_not_scored(tmp_path):
    root = authors(tmp_path, [question(1)], "test-dev2015", "test2015", annotations=False)
    (row,) = vqav2.load(root)
    assert vqav2.pictures(row)[0].name == "COCO_test2015_000000000043.jpg" and vqav2.pictures(row)[0].open()
    with pytest.raises(UserError, match="no answers to score with"):
        vqav2.score("yes", row)


def test_validation_goes_before_test(tmp_path):
    mirror(tmp_path, [{"question_id": 9, "question": "Is it?", "image_id": 3}], "testdev")
    mirror(tmp_path, [question(1)])
    assert [row["question_id"] for row in vqav2.load(tmp_path)] == [1]
    authors(tmp_path / "b", [question(9)], "test2015", "test2015", annotations=False)
    authors(tmp_path / "b", [question(1)])
    assert [row["question_id"] for row in vqav2.load(tmp_path / "b")] == [1]


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("column", ["question", "question_id", "answers", "answer_type", "image"])
def test_a_missing_column(tmp_path, column):
    row = {**question(1), "image": cell()}
    del row[column]
    write_mirror(tmp_path / "validation.parquet", [row])
    with pytest.raises(UserError, match=rf"validation.parquet: {column} missing; there are "):
        vqav2.load(tmp_path)


def test_columns_of_another_benchmark(tmp_path):
    with pytest.raises(UserError, match="ocr_tokens are columns of another benchmark"):
        vqav2.load(mirror(tmp_path, [question(1, ocr_tokens=["stop"])]))


def test_a_wrong_directory(tmp_path):
    (tmp_path / "OpenEnded_mscoco_val2014_questions.json").write_text("{}")
    with pytest.raises(UserError, match=r"no validation-\*.parquet, no v2_OpenEnded.*; there are OpenEnded_mscoco"):
        vqav2.load(tmp_path)
    with pytest.raises(UserError, match="no such file or directory"):
        vqav2.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "answers",
    [
        str(people(["yes"] * 4 + ["no"] * 6)),
        json.dumps([{**each, "answer_confidence": None} for each in people(["yes"] * 4 + ["no"] * 6)]),
        str(["yes"] * 4 + ["no"] * 6),
        ["yes"] * 4 + ["no"] * 6,
    ],
)
def test_answers_in_another_type_become_the_documented_one(tmp_path, answers):
    (row,) = vqav2.load(mirror(tmp_path, [question(1) | {"answers": answers}]))
    assert [each["answer"] for each in row["answers"]] == ["yes"] * 4 + ["no"] * 6
    assert [each["answer_id"] for each in row["answers"]] == [*range(1, 11)]


@pytest.mark.parametrize("answers", ["nan", None, ""])
def test_null_answers_are_refused_for_scoring(tmp_path, answers):
    (row,) = vqav2.load(mirror(tmp_path, [question(1) | {"answers": answers}]))
    assert row["answers"] is None
    with pytest.raises(UserError, match="question 1 has no answers"):
        vqav2.score("yes", row)


@pytest.mark.parametrize("answers", ["yes", "[yes", "3"])
def test_answers_that_are_no_list(tmp_path, answers):
    with pytest.raises(UserError, match=r"question 1: answers: .*; expected a list"):
        list(vqav2.load(mirror(tmp_path, [question(1) | {"answers": answers}])))


def test_numbers_as_answers_are_their_texts(tmp_path):
    (row,) = vqav2.load(authors(tmp_path, [question(1) | {"answers": people([2] * 10)}]))
    assert vqav2.score("two", row).value == 1


def test_a_null_among_the_answers(tmp_path):
    with pytest.raises(UserError, match="question 1: answer 10: None; expected text"):
        list(vqav2.load(authors(tmp_path, [question(1) | {"answers": people(["yes"] * 9 + [None])}])))


def test_ids_of_another_type(tmp_path):
    (row,) = vqav2.load(mirror(tmp_path, [question(1) | {"question_id": "262148004"}]))
    assert row["question_id"] == 262148004
    with pytest.raises(UserError, match="question_id: 'first'; expected a whole number"):
        list(vqav2.load(mirror(tmp_path / "b", [question(1) | {"question_id": "first"}])))


@pytest.mark.parametrize("write", [mirror, authors])
def test_repeated_ids(tmp_path, write):
    with pytest.raises(UserError, match="1 values of question_id are repeated, such as 3"):
        vqav2.load(write(tmp_path, [question(3), question(4), question(3)]))


def test_annotations_that_are_missing_or_do_not_fit(tmp_path):
    root = authors(tmp_path, [question(1), question(2)])
    file = root / "v2_mscoco_val2014_annotations.json"
    content = json.loads(file.read_text())
    content["annotations"].pop(0)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="1 of 2 questions have no annotation, as 2"):
        vqav2.load(root)
    file.unlink()
    with pytest.raises(UserError, match=r"not v2_mscoco_val2014_annotations.json, which has the answers"):
        vqav2.load(root)


@pytest.mark.parametrize("content", ['{"questions": "Größe"}'.encode("latin-1"), "{}".encode("utf-16"), b"{", b"[]"])
def test_wrong_encodings_and_contents(tmp_path, content):
    root = authors(tmp_path, [question(1)])
    (root / "v2_OpenEnded_mscoco_val2014_questions.json").write_bytes(content)
    with pytest.raises(UserError, match=r"v2_OpenEnded_mscoco_val2014_questions.json"):
        vqav2.load(root)
