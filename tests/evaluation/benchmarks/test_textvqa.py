"""TextVQA: the line of words that were read, its two layouts and bad input."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.benchmarks import textvqa
from vargpt_lightning.utils.errors import UserError

KEYS = ["J.K. Smith"] * 3 + ["j k smith"] * 3 + ["smith"] * 4
SHORT = "\nAnswer the question using a single word or phrase."


def question(number, keys=KEYS, **more):
    row = {"image_id": f"00{number}", "question_id": number, "question": "what does the USA sign say?"}
    return {**row, "answers": list(keys), "set_name": "val", **more}


def mirror(root, rows, split="validation"):
    write_mirror(root / "data" / f"{split}-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])
    return root


def authors(root, rows, split="val", words=None):
    root.mkdir(parents=True, exist_ok=True)
    (root / f"TextVQA_0.5.1_{split}.json").write_text(json.dumps({"dataset_type": split, "data": rows}))
    if words is not None:
        read = [{"image_id": row["image_id"], "ocr_tokens": words, "ocr_info": []} for row in rows]
        (root / f"TextVQA_Rosetta_OCR_v0.2_{split}.json").write_text(json.dumps({"data": read}))
    folder = "train_images" if split == "val" else "test_images"
    for row in rows:
        write_picture(root / folder / f"{row['image_id']}.jpg")
    return root


def test_scores():
    assert textvqa.score("JK Smith.", question(1)).value == pytest.approx(0.9)
    assert textvqa.score("Smith", question(1)).value == 1
    assert textvqa.score("j.k. smith is the answer", question(1)).value == 0
    assert textvqa.score("Yes", question(1, ["yes"] * 10), "official").value == 0


def test_styles():
    record = question(1, ocr_tokens=["STOP", "U.S."])
    assert textvqa.prompt(record) == "What does the usa sign say?" + SHORT
    with_words = "What does the usa sign say?\nReference OCR token: STOP, U.S." + SHORT
    assert textvqa.prompt(record, "llava_ocr") == textvqa.prompt(record, ocr=True) == with_words
    assert textvqa.prompt(record, "plain") == "what does the USA sign say?"
    assert textvqa.prompt(record, "qwen") == "What does the usa sign say? Answer:"
    with pytest.raises(UserError, match="question 1 has no ocr_tokens"):
        textvqa.prompt(question(1), "llava_ocr")
    with pytest.raises(UserError, match="expected one of llava, llava_ocr, plain, qwen"):
        textvqa.prompt(record, "ocr")


@pytest.mark.parametrize("write", [mirror, authors])
def test_layouts(tmp_path, write):
    rows = textvqa.load(write(tmp_path, [question(34602), question(5)]))
    assert [textvqa.record_id(row) for row in rows] == ["34602", "5"]
    assert [{**row, "image": None} for row in rows] == [
        question(34602) | {"image": None},
        question(5) | {"image": None},
    ]
    assert textvqa.pictures(rows[1])[0].open().size == (4, 3)
    assert "image" not in textvqa.load(tmp_path, pictures=False)[0]


def test_words_that_were_read_come_from_the_file_beside_the_questions(tmp_path):
    (row,) = textvqa.load(authors(tmp_path / "a", [question(1)], words=["STOP", "3"]))
    assert textvqa.prompt(row, "llava_ocr").splitlines()[1] == "Reference OCR token: STOP, 3"
    (row,) = textvqa.load(authors(tmp_path / "b", [question(1)]))
    with pytest.raises(UserError, match="TextVQA_Rosetta_OCR"):
        textvqa.prompt(row, "llava_ocr")


def test_the_file_of_words_is_not_taken_for_the_questions(tmp_path):
    authors(tmp_path, [question(1)], words=["STOP"])
    (tmp_path / "TextVQA_0.5.1_val.json").unlink()
    with pytest.raises(UserError, match=r"no TextVQA_0.5.1_val.json; there are TextVQA_Rosetta_OCR_v0.2_val.json"):
        textvqa.load(tmp_path)


@pytest.mark.parametrize("write", [mirror, authors])
def test_the_test_split_can_be_asked_not_scored(tmp_path, write):
    """The mirror's test split has ten empty answers, to which an empty output would be equal."""
    rows = [question(1, [""] * 10)]
    if write is authors:
        del rows[0]["answers"]
    found = textvqa.load(write(tmp_path, rows, "test"))
    assert textvqa.prompt(found[0]) and textvqa.pictures(found[0])[0].open()
    with pytest.raises(UserError, match="question 1 has no answers to score with; a test split can be asked"):
        textvqa.score("", found[0])


@pytest.mark.parametrize("column", ["question", "question_id", "answers", "image_id"])
def test_a_missing_column(tmp_path, column):
    row = question(1)
    del row[column]
    with pytest.raises(UserError, match=f"{column} missing; there are "):
        textvqa.load(mirror(tmp_path / "a", [row]))
    row.setdefault("image_id", "x")
    if column != "image_id":
        with pytest.raises(UserError, match=f"TextVQA_0.5.1_val.json, entry 1: {column} missing"):
            textvqa.load(authors(tmp_path / "b", [row]))


def test_a_wrong_directory(tmp_path):
    with pytest.raises(UserError, match="multiple_choice_answer, answer_type are columns of another benchmark"):
        textvqa.load(mirror(tmp_path, [question(1, multiple_choice_answer="a", answer_type="other")]))
    with pytest.raises(UserError, match="there are no files"):
        (tmp_path / "empty").mkdir()
        textvqa.load(tmp_path / "empty")


def test_other_types_become_the_documented_ones(tmp_path):
    (row,) = textvqa.load(mirror(tmp_path, [question(1) | {"question_id": "34602", "answers": str(KEYS)}]))
    assert (row["question_id"], row["answers"]) == (34602, KEYS)


def test_a_question_that_is_null(tmp_path):
    with pytest.raises(UserError, match="question 1: question: None; expected text"):
        list(textvqa.load(authors(tmp_path, [question(1, question=None)])))


@pytest.mark.parametrize("write", [mirror, authors])
def test_repeated_ids(tmp_path, write):
    with pytest.raises(UserError, match="question_id are repeated, such as 3"):
        textvqa.load(write(tmp_path, [question(3), question(3)]))


@pytest.mark.parametrize("content", ['{"data": "é"}'.encode("latin-1"), b"{", b'{"rows": []}', b"[]"])
def test_wrong_encodings_and_contents(tmp_path, content):
    (tmp_path / "TextVQA_0.5.1_val.json").write_bytes(content)
    with pytest.raises(UserError, match=r"TextVQA_0.5.1_val.json"):
        textvqa.load(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    content = json.dumps({"data": [question(1, ["café"] * 10)]}, ensure_ascii=False)
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(content, encoding="utf-8-sig")
    assert textvqa.score("Café", textvqa.load(tmp_path)[0]).value == 1
