"""GQA: its exact matches, question types, and its two layouts with pictures that are joined late."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import gqa
from vargpt_lightning.utils.errors import UserError


def question(number, image="n1", answer="yes", structural="verify", semantic="obj", **more):
    types = {"detailed": "existC", "semantic": semantic, "structural": structural}
    row = {"id": f"20{number}", "imageId": image, "question": "Is it red?", "answer": answer, "types": types}
    return {**row, **more}


def mirror(root, questions, images=("n1", "n2")):
    write_mirror(root / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet", questions)
    pictures = [{"id": id_, "image": cell(("red", "blue", "lime")[n])} for n, id_ in enumerate(images)]
    write_mirror(root / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", pictures)
    return root


def authors(root, questions, images=("n1", "n2")):
    rows = {row["id"]: {key: value for key, value in row.items() if key != "id"} for row in questions}
    root.mkdir(parents=True, exist_ok=True)
    (root / gqa.QUESTIONS).write_text(json.dumps(rows))
    for id_ in images:
        write_picture(root / "images" / f"{id_}.jpg")
    return root


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "answer", "lmms_eval", "official", "lenient"),
    [
        ("Yes", "yes", 1, 1, 1),
        ("yes...", "yes", 1, 1, 1),
        ("yes .", "yes", 0, 0, 1),  # the blank stays
        ("(yes)", "yes", 1, 0, 1),
        ("“yes”", "yes", 0, 0, 1),  # no ASCII punctuation
        ("a man", "man", 0, 0, 1),
        ("2", "two", 0, 0, 1),
        ("T-shirt", "t-shirt", 1, 1, 1),
        ("tshirt", "t-shirt", 1, 0, 0),
        ("t shirt", "t-shirt", 0, 0, 1),
        ("No, the man is not wearing a hat.", "no", 0, 0, 1),
        ("The man is on the left.", "left", 0, 0, 1),
        ("Let me look. It is brown. Answer: left", "left", 0, 0, 1),
        ("It is a table. It is a chair.", "chair", 0, 0, 1),
        ("left or right", "left", 0, 0, 0),
        ("It is not left.", "left", 0, 0, 0),
        ("black and white", "black", 0, 0, 0),
        ("handbag", "bag", 0, 0, 0),
        ("yes\0", "yes", 1, 0, 1),  # numpy's strings, which the reference compares, have no NUL at their end
        ("", "yes", 0, 0, 0),
        ("iPad", "iPad", 1, 0, 1),  # the authors' script takes the key as it is, and LLaVA sends lower case
    ],
)
def test_the_three_rules(output, answer, lmms_eval, official, lenient):
    record = {"id": "1", "answer": answer}
    for protocol, value in {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}.items():
        found = gqa.score(output, record, protocol)
        assert (found.value, found.status) == (value, "ok" if output else "empty"), protocol


def test_what_was_compared_is_kept():
    assert gqa.score(" A Dog! ", {"id": "1", "answer": "dog"}).parsed == "a dog"
    assert gqa.score("y\0" * 50_000, {"id": "1", "answer": "x"}, "lenient").value == 0.0


def test_styles():
    assert gqa.prompt({"question": "Who?"}, "plain") == "Who?"
    assert gqa.prompt({"question": "Who?"}, "qwen") == "Who? Answer:"
    with pytest.raises(UserError, match="llava, plain, qwen"):
        gqa.prompt({"question": "Who?"}, "chatty")


# ----------------------------------------------------------------------------------------------------------- aggregate


def test_accuracy_and_types():
    records = [question(1), question(2, structural="query", semantic="rel"), question(3, structural="query")]
    found = gqa.aggregate(records, [Score(1.0), Score(0.0), Score(1.0)])
    assert next(iter(found)) == "accuracy" and found["accuracy"] == 2 / 3
    assert (found["accuracy/binary"], found["accuracy/open"]) == (1.0, 0.5)
    assert (found["accuracy/structural/verify"], found["accuracy/structural/query"]) == (1.0, 0.5)
    assert (found["accuracy/semantic/obj"], found["accuracy/semantic/rel"]) == (1.0, 0.0)
    assert found["n"] == 3 and found["low"] < 2 / 3 < found["high"]
    bare = [{"id": "1", "answer": "yes"}] * 2
    assert gqa.aggregate(bare, [Score(1.0), Score(0.0)])["accuracy"] == 0.5
    with pytest.raises(UserError, match="1 for 2 records"):
        gqa.aggregate(bare, [Score(1.0)])


# ---------------------------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize("inside", ["", "testdev_balanced_instructions"])
def test_the_mirror_joins_pictures_when_they_are_opened(tmp_path, inside):
    questions = [question(n, image=("n1", "n2")[n % 2]) for n in range(5)]
    rows = gqa.load(mirror(tmp_path, questions) / inside)
    assert [gqa.record_id(row) for row in rows] == ["200", "201", "202", "203", "204"]
    pixels = [gqa.pictures(row)[0].open().getpixel((0, 0)) for row in rows]
    assert pixels == [(255, 0, 0), (0, 0, 255)] * 2 + [(255, 0, 0)]
    assert all(row["image"].data is None for row in rows)  # nothing is held until it is opened
    assert rows[0]["types"]["structural"] == "verify"
    bare = gqa.load(tmp_path / inside, pictures=False)
    assert "image" not in bare[0] and len(bare) == 5


@pytest.mark.parametrize("inside", ["", gqa.QUESTIONS])
def test_the_authors_layout(tmp_path, inside):
    rows = gqa.load(authors(tmp_path, [question(1), question(2, image="n2")]) / inside)
    assert [(row["id"], row["imageId"], row["answer"]) for row in rows] == [("201", "n1", "yes"), ("202", "n2", "yes")]
    assert gqa.pictures(rows[1])[0].open().size == (4, 3)
    assert "image" not in gqa.load(tmp_path / inside, pictures=False)[0]


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("answer", "expected"), [(True, "yes"), (2, "2"), (2.0, "2"), (["dog"], "dog"), ("['dog']", "dog"), ("dog", "dog")]
)
def test_answers_of_another_type(tmp_path, answer, expected):
    assert gqa.load(authors(tmp_path, [question(1, answer=answer)]))[0]["answer"] == expected
    assert gqa.score(expected, {"id": "1", "answer": answer}).value == 1.0


@pytest.mark.parametrize("answer", [None, "nan", "", float("nan"), ["dog", "cat"], "[dog", {"a": 1}, "[dog]"])
def test_answers_that_are_no_words(tmp_path, answer):
    authors(tmp_path, [question(1, answer=answer)])
    if answer == "[dog":
        assert gqa.load(tmp_path)[0]["answer"] == "[dog"
        return
    with pytest.raises(UserError, match=r"question 201: the answer is .*expected a word or a phrase"):
        gqa.load(tmp_path)


def test_a_missing_column(tmp_path):
    row = question(1)
    del row["imageId"]
    with pytest.raises(UserError, match="imageId missing; there are id, question"):
        gqa.load(mirror(tmp_path / "mirror", [row]))
    with pytest.raises(UserError, match="question 201: imageId missing"):
        gqa.load(authors(tmp_path / "authors", [row]), pictures=False)


def test_duplicate_ids(tmp_path):
    with pytest.raises(UserError, match="'201' is there twice"):
        gqa.load(mirror(tmp_path / "questions", [question(1), question(1)]))
    with pytest.raises(UserError, match="id 'n1' occurs twice"):
        gqa.load(mirror(tmp_path / "pictures", [question(1)], images=("n1", "n1")))


def test_pictures_that_are_missing(tmp_path):
    with pytest.raises(UserError, match="2 pictures that questions name are missing, such as n8"):
        gqa.load(mirror(tmp_path / "mirror", [question(1), question(2, image="n9"), question(3, image="n8")]))
    with pytest.raises(UserError, match=r"'n1.jpg' is in none of .*images"):
        gqa.load(authors(tmp_path / "authors", [question(1)], images=()))
    write_mirror(tmp_path / "alone" / "testdev-00000-of-00001.parquet", [question(1)])
    with pytest.raises(UserError, match=r"expected testdev_balanced_images/testdev-\*.parquet"):
        gqa.load(tmp_path / "alone")
    assert len(gqa.load(tmp_path / "alone", pictures=False)) == 1


def test_a_directory_of_another_benchmark(tmp_path):
    row = {"question_id": "1", "question": "Is it red?", "answer": "yes", "image": cell()}
    write_mirror(tmp_path / "parquet" / "test-00000-of-00001.parquet", [row])
    with pytest.raises(UserError, match=r"no data of it in .*there is test-00000-of-00001.parquet"):
        gqa.load(tmp_path / "parquet")
    (tmp_path / gqa.QUESTIONS).write_text('[{"question": "Is it red?"}]')
    with pytest.raises(UserError, match="expected an object of questions by their ids"):
        gqa.load(tmp_path)


def test_another_encoding(tmp_path):
    authors(tmp_path, [question(1)])
    text = json.dumps({"1": question(1, answer="caf\xe9")}, ensure_ascii=False)
    (tmp_path / gqa.QUESTIONS).write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match=r"testdev_balanced_questions.json: byte 0 .*is not UTF-8"):
        gqa.load(tmp_path)
