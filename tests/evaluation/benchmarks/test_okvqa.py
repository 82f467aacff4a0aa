"""OK-VQA: no stemming, its two layouts, and the files of VQA that have the same names."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.benchmarks import okvqa
from vargpt_lightning.utils.errors import UserError

KEYS = ["race"] * 6 + ["motocross"] * 2 + ["ride"] * 2


def question(number, keys=KEYS, **more):
    row = {"question_id": str(number), "question": "What sport?", "answers": list(keys)}
    return {**row, "question_type": "one", "answer_type": "other", **more}


def mirror(root, rows):
    write_mirror(root / "data" / "val2014-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])
    return root


def authors(root, rows, description="This is v1.0 of the OK-VQA dataset."):
    root.mkdir(parents=True, exist_ok=True)
    asked = [{"question_id": int(row["question_id"]), "image_id": 9, "question": row["question"]} for row in rows]
    answered = []
    for row in rows:
        people = [
            {"answer_id": place, "raw_answer": f"{key}ing", "answer_confidence": "yes", "answer": key}
            for place, key in enumerate(row["answers"], 1)
        ]
        kinds = {"question_type": "one", "answer_type": "other", "confidence": 3}
        answered.append({"image_id": 9, "question_id": int(row["question_id"]), "answers": people, **kinds})
    info = {"description": description}
    names = ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")
    (root / names[0]).write_text(json.dumps({"info": info, "questions": asked}))
    (root / names[1]).write_text(json.dumps({"info": info, "annotations": answered}))
    write_picture(root / "val2014" / "COCO_val2014_000000000009.jpg")
    return root


def test_nothing_is_stemmed():
    assert okvqa.score("race", question(1)).value == 1
    assert okvqa.score("racing", question(1)).value == okvqa.score("races", question(1)).value == 0
    assert okvqa.score("Motocross.", question(1)).value == 0.6


def test_styles():
    told = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    short = "\nAnswer the question using a single word or phrase."
    assert okvqa.prompt(question(1)) == "What sport?" + told + short
    assert okvqa.prompt(question(1), "plain") == "What sport?"
    assert okvqa.prompt(question(1), "qwen") == "What sport? Answer:"


@pytest.mark.parametrize("write", [mirror, authors])
def test_layouts(tmp_path, write):
    rows = okvqa.load(write(tmp_path, [question(n) for n in (2971475, 5)]))
    assert [okvqa.record_id(row) for row in rows] == ["2971475", "5"]
    assert [(row["question_id"], row["answers"], row["question_type"]) for row in rows] == [
        ("2971475", KEYS, "one"),
        ("5", KEYS, "one"),
    ]
    assert okvqa.pictures(rows[1])[0].open().size == (4, 3)
    assert "image" not in okvqa.load(tmp_path, pictures=False)[0]


def test_the_files_of_vqa_that_have_the_same_names_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"This is v1.0 of the VQA dataset.*expected OK-VQA"):
        okvqa.load(authors(tmp_path, [question(1)], "This is v1.0 of the VQA dataset."))


def test_a_directory_of_vqav2(tmp_path):
    with pytest.raises(UserError, match="multiple_choice_answer are columns of another benchmark"):
        okvqa.load(mirror(tmp_path / "a", [question(1, multiple_choice_answer="race")]))
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not OK-VQA .*: no val2014-\*.parquet, no OpenEnded_mscoco_val2014"):
        okvqa.load(tmp_path)


@pytest.mark.parametrize("column", ["question", "question_id", "answers"])
def test_a_missing_column(tmp_path, column):
    row = {**question(1)}
    del row[column]
    with pytest.raises(UserError, match=f"{column} missing; there are "):
        okvqa.load(mirror(tmp_path, [row]))


def test_other_types_become_the_documented_ones(tmp_path):
    (row,) = okvqa.load(mirror(tmp_path, [question(1) | {"question_id": 12, "answers": str(KEYS)}]))
    assert (row["question_id"], row["answers"]) == ("12", KEYS)


def test_a_question_with_no_answers_scores_0_and_is_counted(tmp_path):
    rows = okvqa.load(authors(tmp_path, [question(1), question(2, [])]))
    scores = [okvqa.score("race", row) for row in rows]
    figures = okvqa.aggregate(rows, scores)
    assert figures["accuracy"] == 0.5 and figures["without_answers"] == 1


def test_repeated_ids(tmp_path):
    with pytest.raises(UserError, match="question_id are repeated, such as 3"):
        okvqa.load(mirror(tmp_path, [question(3), question(3)]))
