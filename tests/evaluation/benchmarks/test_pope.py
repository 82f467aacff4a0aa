"""POPE: its two readings, one table for all figures, and its two layouts."""

from __future__ import annotations

import json
import math

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import pope
from vargpt_lightning.utils.errors import UserError

YES, NO = {"question_id": "1", "answer": "yes"}, {"question_id": "1", "answer": "no"}


def mirror_row(number, answer="yes", category="random", **more):
    row = {"id": str(number), "question_id": str(number), "question": "Is there a dog?", "answer": answer}
    return {**row, "image_source": f"COCO_val2014_{number:012d}", "category": category, "image": cell(), **more}


def authors(folder, lines=3, categories=pope.CATEGORIES, **more):
    for category in categories:
        rows = [
            {"question_id": n, "image": f"{n}.jpg", "text": "Is there a dog?", "label": ("yes", "no")[n % 2], **more}
            for n in range(1, lines + 1)
        ]
        (folder / "coco").mkdir(parents=True, exist_ok=True)
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / "coco" / f"coco_pope_{category}.json").write_text(text + "\n")
    for number in range(1, lines + 1):
        write_picture(folder / "val2014" / f"{number}.jpg")
    return folder


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "lmms_eval", "official", "lenient"),
    [
        ("yes", "yes", "yes", "yes"),
        (" NO \n", "no", "yes", "no"),  # "NO" is none of the three words of the authors' rule
        ("Yes, there is", None, "yes", "yes"),
        ("No, there is none", None, "no", "no"),
        ("Not sure", None, "yes", None),
        ("It is red. I see no dog", None, "yes", "no"),  # only the first sentence counts for the authors
        ("There is not", None, "no", None),
        ("no\nyes", None, "yes", "no"),  # words stand between blanks, and a line break is none
        ("yes or no? I have no idea", None, "no", None),
        ("Is it? Yes... the answer is: no", None, "yes", "no"),
        ("The answer is yes. No: the answer is no", None, "yes", "no"),
        ("yes\0", None, "yes", "yes"),
        ("", None, "yes", None),
    ],
)
def test_the_three_readings(output, lmms_eval, official, lenient):
    readings = {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}
    for protocol, reading in readings.items():
        assert pope.score(output, YES, protocol).parsed == reading
        assert pope.score(output, YES, protocol).value == (reading == "yes")
        assert pope.score(output, NO, protocol).value == (reading == "no")


def test_statuses():
    assert pope.score("yes", YES).status == "ok"
    assert pope.score(" \n", YES).status == "empty"
    assert pope.score("Yes.", YES).status == "unparsed"
    assert pope.score("Yes.", YES, "official").status == "ok"
    # the authors' rule counts what it cannot read as yes; that it was not read is still said
    assert pope.score("A dog", YES, "official") == Score(1.0, "yes", "unparsed")
    assert pope.score("", YES, "official") == Score(1.0, "yes", "empty")


def test_long_outputs_and_unknown_protocols():
    assert pope.score("no " * 50_000, NO, "lenient").value == 1.0
    assert pope.score("x" * 100_000, NO, "official").parsed == "yes"
    with pytest.raises(UserError, match=r"'strict'.*lmms_eval, official, lenient"):
        pope.score("yes", YES, "strict")


def test_styles():
    record = {"question": " Is there a dog? "}
    assert pope.prompt(record, "plain") == "Is there a dog?"
    with pytest.raises(UserError, match=r"'chatty'.*llava, plain"):
        pope.prompt(record, "chatty")


# ----------------------------------------------------------------------------------------------------------- aggregate


def scored(answers, outputs, protocol="lmms_eval", category="random"):
    records = [{"question_id": n, "category": category, "answer": answer} for n, answer in enumerate(answers)]
    return records, [pope.score(output, row, protocol) for output, row in zip(outputs, records, strict=True)]


def test_all_figures_come_from_one_table():
    # two hits, a miss, an answer that cannot be read; a false alarm, a right no, one that cannot be read
    answers = ["yes", "yes", "yes", "yes", "no", "no", "no"]
    outputs = ["yes", "Yes", "no", "maybe", "yes", "no", "maybe"]
    found = pope.aggregate(*scored(answers, outputs))
    assert found["accuracy"] == 3 / 7
    assert found["precision"] == 2 / 3
    assert found["recall"] == 2 / 4
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["yes_ratio"] == 3 / 7
    assert found["lmms_eval_recall"] == 2 / 3
    assert found["lmms_eval_f1"] == pytest.approx(2 / 3)
    assert found["lmms_eval_yes_ratio"] == 4 / 7
    assert (found["n"], found["unparsed"]) == (7, 2)
    assert found["low"] < found["accuracy"] < found["high"]
    assert next(iter(found)) == pope.HEADLINE


def test_the_references_own_figures_stand_under_its_protocol_only():
    found = pope.aggregate(*scored(["yes", "no"], ["Yes.", "No."], "official"), "official")
    assert found["accuracy"] == 1.0
    assert not any(name.startswith("lmms_eval") for name in found)


def test_categories_and_the_mean_of_their_f1():
    records, scores = scored(["yes", "no"], ["yes", "no"], category="random")
    more = scored(["yes", "no", "no"], ["yes", "yes", "yes"], category="adversarial")
    found = pope.aggregate(records + more[0], scores + more[1])
    assert found["accuracy"] == 3 / 5
    assert found["accuracy/random"] == found["f1/random"] == 1.0
    assert found["accuracy/adversarial"] == pytest.approx(1 / 3)
    assert found["yes_ratio/adversarial"] == 1.0
    assert found["f1/adversarial"] == pytest.approx(0.5)
    assert found["f1_mean"] == pytest.approx(0.75)
    assert found["f1"] == pytest.approx(2 / 3)


def test_nobody_says_yes():
    found = pope.aggregate(*scored(["yes", "no"], ["no", "no"]))
    assert (found["precision"], found["recall"], found["f1"], found["accuracy"]) == (0, 0, 0, 0.5)
    assert math.isnan(pope.aggregate([], [])["accuracy"])


def test_one_score_for_each_record():
    with pytest.raises(UserError, match="1 for 2 records"):
        pope.aggregate([YES, NO], [Score(1.0, "yes")])


# ---------------------------------------------------------------------------------------------------------------- load


def test_the_mirrors_two_configs(tmp_path):
    rows = [mirror_row(n, category=category) for category in pope.CATEGORIES for n in (1, 2)]
    write_mirror(tmp_path / "all" / "data" / "test-00000-of-00001.parquet", rows)
    for category in pope.CATEGORIES:
        mine = [row for row in rows if row["category"] == category]
        write_mirror(tmp_path / "split" / "Full" / f"{category}-00000-of-00001.parquet", mine)
    found = [pope.load(tmp_path / name) for name in ("all", "split")]
    assert [*map(len, found)] == [6, 6]
    ids = [{pope.record_id(row) for row in one} for one in found]
    assert ids[0] == ids[1] == {f"{category}/{n}" for category in pope.CATEGORIES for n in (1, 2)}
    assert pope.pictures(found[0][0])[0].open().size == (4, 3)
    assert "image" not in pope.load(tmp_path / "all", pictures=False)[0]
    # the folder of a whole mirror has both configs: the questions are not counted twice
    (tmp_path / "split" / "Full").rename(tmp_path / "all" / "Full")
    assert len(pope.load(tmp_path / "all")) == 6


@pytest.mark.parametrize("inside", ["", "coco", "coco/coco_pope_random.json"])
def test_the_authors_layout(tmp_path, inside):
    rows = pope.load(authors(tmp_path) / inside)
    assert len(rows) == (3 if inside.endswith("json") else 9)
    first = next(row for row in rows if row["category"] == "random")
    assert {key: first[key] for key in ("question_id", "question", "answer", "image_source")} == {
        "question_id": "1",
        "question": "Is there a dog?",
        "answer": "no",
        "image_source": "1",
    }
    assert pope.pictures(first)[0].open().size == (4, 3)
    assert len(pope.load(tmp_path / inside, pictures=False)) == len(rows)


def test_ids_that_start_again_in_each_category(tmp_path):
    rows = [*pope.load(authors(tmp_path))]
    assert len({row["question_id"] for row in rows}) == 3
    assert len({pope.record_id(row) for row in rows}) == 9


def test_a_random_file_that_is_shorter_than_the_others(tmp_path):
    authors(tmp_path, lines=30)
    authors(tmp_path, lines=29, categories=("random",))
    rows = [*pope.load(tmp_path)]
    assert len(rows) == 89
    found = pope.aggregate(rows, [pope.score("yes", row) for row in rows])
    assert found["recall/random"] == 1.0
    assert found["precision/random"] == pytest.approx(14 / 29)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("answer", "expected"), [(True, "yes"), (0, "no"), ("1", "yes"), ("No.", "no"), (" YES ", "yes")]
)
def test_answers_of_another_type(tmp_path, answer, expected):
    assert pope.load(authors(tmp_path, label=answer))[0]["answer"] == expected
    assert pope.score(expected, {"question_id": 1, "answer": answer}).value == 1.0


@pytest.mark.parametrize("answer", [None, "nan", 2, "maybe", ["yes"]])
def test_answers_that_are_neither_yes_nor_no(tmp_path, answer):
    with pytest.raises(UserError, match=r"adversarial/1: the answer is .*expected yes or no"):
        pope.load(authors(tmp_path, label=answer))


def test_a_missing_column(tmp_path):
    row = mirror_row(1)
    del row["category"]
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", [row])
    with pytest.raises(UserError, match="category missing; there are id, question_id"):
        pope.load(tmp_path)


def test_a_missing_field_of_the_authors_file(tmp_path):
    authors(tmp_path)
    (tmp_path / "coco" / "coco_pope_random.json").write_text('{"question_id": 1, "image": "1.jpg", "text": "?"}\n')
    with pytest.raises(UserError, match=r"coco_pope_random.json.*label missing"):
        pope.load(tmp_path)


def test_duplicate_ids(tmp_path):
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", [mirror_row(1), mirror_row(1)])
    with pytest.raises(UserError, match="'random/1' is there twice"):
        pope.load(tmp_path)


def test_a_directory_of_another_benchmark(tmp_path):
    row = mirror_row(1, category="existence")  # MME has the same columns
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", [row])
    with pytest.raises(UserError, match=r"'existence'; POPE has adversarial, popular, random"):
        pope.load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vqa.json").write_text("[]")
    with pytest.raises(UserError, match=r"coco_pope_<category>.json; there is vqa.json"):
        pope.load(tmp_path / "other")
    with pytest.raises(UserError, match="not there"):
        pope.load(tmp_path / "nowhere")


def test_another_encoding(tmp_path):
    authors(tmp_path)
    text = '{"question_id": 1, "image": "1.jpg", "text": "Is there a caf\xe9?", "label": "yes"}\n'
    (tmp_path / "coco" / "coco_pope_popular.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"coco_pope_popular.json: byte \d+ is not UTF-8"):
        pope.load(tmp_path)


def test_pictures_that_are_not_there(tmp_path):
    authors(tmp_path)
    for picture in (tmp_path / "val2014").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match=r"'1.jpg' is in none of .*val2014"):
        pope.load(tmp_path)
    assert len(pope.load(tmp_path, pictures=False)) == 9  # scoring needs none


def test_a_picture_that_does_not_decode(tmp_path):
    authors(tmp_path)
    (tmp_path / "val2014" / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2\.jpg does not decode"):
        pope.pictures(pope.load(tmp_path)[1])[0].open()
