"""MME: four characters, sums over subtasks, pairs of questions, and its two layouts."""

from __future__ import annotations

import math

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import mme
from vargpt_lightning.utils.errors import UserError

YES, NO = {"question_id": "count/1.jpg", "answer": "Yes"}, {"question_id": "count/1.jpg", "answer": "No"}
LINES = "Is it a dog? Please answer yes or no.\tYes\nIs it a cat? Please answer yes or no.\tNo\n\n"
APART = ("artwork", "celebrity", "landmark", "posters", "scene")


def pair(category, file, **more):
    return [
        {"question_id": f"{category}/{file}", "question": question, "answer": answer, "category": category, **more}
        for question, answer in (("Is it a dog?", "Yes"), ("Is it a cat?", "No"))
    ]


def authors(root):
    """The release: five subtasks with pictures and texts apart, artwork's pictures one folder deeper."""
    for subtask in mme.SUBTASKS:
        texts = root / subtask / ("questions_answers_YN" if subtask in APART else "")
        images = root / subtask / ("images" if subtask in APART else "")
        images = images / "toy_dataset" if subtask == "artwork" else images
        texts.mkdir(parents=True, exist_ok=True)
        for stem in ("0001", "0002"):
            (texts / f"{stem}.txt").write_text(LINES)
            write_picture(images / f"{stem}.{'png' if subtask == 'OCR' else 'jpg'}")
    return root


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "lmms_eval", "official", "lenient"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("no.", "no", "no", "no"),
        ("n", "no", None, "no"),  # the authors' tool knows no lone letters
        ("Y.", "yes", None, "yes"),
        ("...yes", "yes", None, "yes"),  # four characters: full stops count for the authors
        ("N.o", "no", None, None),
        ("Nothing", "no", "no", None),
        ("know", "no", "no", None),
        ("Eyes", "yes", "yes", None),
        ("noyes", "no", "no", None),
        ("The answer is no", None, None, "no"),
        ("No, yes", "no", "no", "no"),
        ("yes no", "yes", "yes", "yes"),
        ("Is it? yes no", None, None, None),
        ("No\0", "no", "no", "no"),
        ("", None, None, None),
    ],
)
def test_the_three_readings(output, lmms_eval, official, lenient):
    for protocol, reading in {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}.items():
        found = [mme.score(output, record, protocol) for record in (YES, NO)]
        assert [each.parsed for each in found] == [reading, reading]
        assert [each.value for each in found] == [reading == "yes", reading == "no"]
        assert found[0].status == ("ok" if reading else "unparsed" if output else "empty")


def test_long_outputs():
    for protocol in ("lmms_eval", "official", "lenient"):
        assert mme.score("no" + " x" * 50_000, NO, protocol).value == 1.0


def test_styles():
    record = {"question": "Is it a dog? Please answer yes or no. "}
    assert mme.prompt(record, "plain") == "Is it a dog? Please answer yes or no."
    assert mme.prompt(record, "qwen") == "Is it a dog? Answer:"
    with pytest.raises(UserError, match="llava, plain, qwen"):
        mme.prompt(record, "chatty")


# ----------------------------------------------------------------------------------------------------------- aggregate


def scores_of(*values):
    return [Score(float(value), "yes") for value in values]


def test_sums_are_over_subtasks_and_means_inside_them():
    records = pair("count", "1.jpg") + pair("count", "2.jpg") + pair("OCR", "1.jpg") + pair("code_reasoning", "1.jpg")
    found = mme.aggregate(records, scores_of(1, 1, 1, 0, 1, 0, 0, 0))
    assert (found["acc/count"], found["acc_plus/count"], found["score/count"]) == (75, 50, 125)
    assert (found["acc/OCR"], found["acc_plus/OCR"], found["score/OCR"]) == (50, 0, 50)
    assert found["perception"] == 175  # not the mean over all pictures
    assert found["cognition"] == found["score/code_reasoning"] == 0
    assert next(iter(found)) == mme.HEADLINE
    assert found["partial"] == 1.0 and found["subtasks"] == 3  # eleven subtasks are missing
    assert found["n"] == 8


def test_all_right_is_2000_and_800():
    records = [row for subtask in mme.SUBTASKS for row in pair(subtask, "1.jpg")]
    found = mme.aggregate(records, scores_of(*[1] * len(records)))
    assert (found["perception"], found["cognition"]) == (2000, 800)
    assert (found["low"], found["high"]) == (2000, 2000)
    assert "partial" not in found


def test_a_pair_may_come_apart_and_share_its_name_with_another_subtasks_picture():
    records = pair("count", "1.jpg") + pair("OCR", "1.jpg")
    records = [{**row, "question_id": "1.jpg"} for row in records[::2] + records[1::2]]
    found = mme.aggregate(records, scores_of(1, 0, 1, 0))
    assert (found["score/count"], found["score/OCR"]) == (200, 0)


def test_the_two_questions_of_a_picture_are_one_group():
    records = pair("count", "1.jpg") + pair("count", "2.jpg") + pair("OCR", "1.jpg")
    assert [len({mme.group(row) for row in records[:n]}) for n in (2, 4, 6)] == [1, 2, 3]
    bare = [{**row, "question_id": "1.jpg"} for row in records]
    assert len({mme.group(row) for row in bare}) == 2


def test_the_interval_resamples_pictures_inside_subtasks():
    # Each subtask is constant, so that nothing varies however different the subtasks are.
    records = [row for n in range(20) for subtask in ("count", "OCR") for row in pair(subtask, f"{n}.jpg")]
    found = mme.aggregate(records, scores_of(*[1, 1, 0, 0] * 20))
    assert (found["low"], found["perception"], found["high"]) == (200, 200, 200)
    # Half of the pictures are all right, half all wrong: by pictures, sd of the sum is 100 / sqrt(20) = 22.4; by
    # questions it would be narrower.
    records = [row for n in range(20) for row in pair("count", f"{n}.jpg")]
    found = mme.aggregate(records, scores_of(*[1, 1, 0, 0] * 10))
    assert found["perception"] == 100
    assert 35 < 100 - found["low"] < 55 and 35 < found["high"] - 100 < 55


def test_unpaired_pictures_are_refused_unless_allowed():
    records = pair("count", "1.jpg") + pair("count", "2.jpg")[:1] + pair("OCR", "1.jpg") * 2
    scores = scores_of(1, 1, 0, 1, 1, 1, 1)
    with pytest.raises(
        UserError, match=r"2 of 3 pictures do not have two questions \(1 with 1, 1 with 4\).*count/2.jpg"
    ):
        mme.aggregate(records, scores)
    found = mme.aggregate(records, scores, allow_partial=True)
    assert found["perception"] == 200
    assert (found["partial"], found["incomplete"], found["subtasks"], found["n"]) == (1.0, 2, 1, 7)
    assert math.isnan(found["cognition"])


def test_a_subtask_that_there_is_not():
    with pytest.raises(UserError, match="'dogs'; MME has existence"):
        mme.aggregate(pair("dogs", "1.jpg"), scores_of(1, 1))
    with pytest.raises(UserError, match="1 for 2 records"):
        mme.aggregate(pair("count", "1.jpg"), scores_of(1))


# ---------------------------------------------------------------------------------------------------------------- load


def test_the_mirror(tmp_path):
    rows = [row for subtask in ("OCR", "scene") for row in pair(subtask, "1.jpg", image=cell())]
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    found = mme.load(tmp_path)
    assert len({mme.record_id(row) for row in found}) == 4
    assert mme.pictures(found[3])[0].open().size == (4, 3)
    bare = [*mme.load(tmp_path, pictures=False)]
    assert bare == [{key: value for key, value in row.items() if key != "image"} for row in rows]


@pytest.mark.parametrize("inside", ["", "MME_Benchmark", "MME_Benchmark_release_version/MME_Benchmark"])
def test_the_authors_layout(tmp_path, inside):
    authors(tmp_path / inside)
    (tmp_path / "eval_tool").mkdir()
    found = [*mme.load(tmp_path)]
    assert len(found) == len({mme.record_id(row) for row in found}) == 56
    for subtask in mme.SUBTASKS:
        mine = [row for row in found if row["category"] == subtask]
        suffix = "png" if subtask == "OCR" else "jpg"
        assert [row["question_id"] for row in mine] == [
            f"{subtask}/{n}.{suffix}" for n in ("0001",) * 2 + ("0002",) * 2
        ]
        assert [row["answer"] for row in mine] == ["Yes", "No"] * 2
        assert mme.pictures(mine[0])[0].open().size == (4, 3)
    assert mme.prompt(found[0]).startswith("Is it a dog?\nAnswer")
    assert mme.aggregate(found, scores_of(*[1] * 56))["perception"] == 2000


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("answer", "expected"), [(True, "Yes"), (False, "No")])
def test_answers_of_another_type(tmp_path, answer, expected):
    row = {**pair("OCR", "1.jpg", image=cell())[0], "answer": answer}
    write_mirror(tmp_path / "test.parquet", [row])
    assert mme.load(tmp_path)[0]["answer"] == expected


def test_a_missing_answer(tmp_path):
    rows = pair("OCR", "1.jpg", image=cell())
    rows[1]["answer"] = None
    write_mirror(tmp_path / "test.parquet", rows)
    with pytest.raises(UserError, match=r"OCR/1.jpg: the answer is None; expected yes or no"):
        mme.load(tmp_path)


def test_a_missing_column(tmp_path):
    rows = [
        {key: row[key] for key in ("question_id", "question", "answer", "image")}
        for row in pair("OCR", "1.jpg", image=cell())
    ]
    write_mirror(tmp_path / "test.parquet", rows)
    with pytest.raises(UserError, match="category missing; there are question_id"):
        mme.load(tmp_path)


def test_duplicate_questions(tmp_path):
    write_mirror(tmp_path / "test.parquet", pair("OCR", "1.jpg", image=cell()) * 2)
    with pytest.raises(UserError, match=r"'OCR/1.jpg/Is it a dog\?' is there twice"):
        mme.load(tmp_path)


def test_a_directory_of_another_benchmark(tmp_path):
    write_mirror(tmp_path / "pope" / "test.parquet", pair("random", "1.jpg", image=cell()))
    with pytest.raises(UserError, match="'random'; MME has existence"):
        mme.load(tmp_path / "pope")
    write_picture(tmp_path / "coco" / "val2014" / "1.jpg")
    with pytest.raises(UserError, match=r"a folder for each subtask .*there is val2014"):
        mme.load(tmp_path / "coco")


def test_a_text_in_another_encoding(tmp_path):
    (authors(tmp_path) / "OCR" / "0001.txt").write_bytes("Is it \xabcaf\xe9\xbb?\tYes\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"0001.txt: byte 6 is not UTF-8"):
        mme.load(tmp_path)


def test_a_text_of_another_form(tmp_path):
    (authors(tmp_path) / "scene" / "questions_answers_YN" / "0002.txt").write_text("Is it a dog? Yes\n")
    with pytest.raises(UserError, match=r"0002.txt, line 1: 'Is it a dog\? Yes'; expected a question, a tab"):
        mme.load(tmp_path)


def test_texts_and_pictures_that_do_not_belong_together(tmp_path):
    authors(tmp_path)
    write_picture(tmp_path / "OCR" / "0003.png")
    assert mme.load(tmp_path).skipped == ["OCR/0003.png: no questions about it"]
    (tmp_path / "count" / "0002.jpg").unlink()
    with pytest.raises(UserError, match=r"count/0002.txt: 0 pictures are named 0002; expected one"):
        mme.load(tmp_path)
