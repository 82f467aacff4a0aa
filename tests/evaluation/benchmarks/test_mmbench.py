"""MMBench: three readings, questions that count when every rotation is right, and its two layouts."""

from __future__ import annotations

import base64
import copy
import csv
import math

import pytest

from tests.evaluation.benchmarks.small_files import cell, png, write_mirror
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import mmbench
from vargpt_lightning.utils.errors import UserError

TEXTS = ("cat", "dog", "red", "blue")


def row(index=1, options=TEXTS, missing="nan", answer="A", **more):
    there = dict(zip("ABCD", [*options, *[missing] * 4], strict=False))
    names = {"category": "colour", "L2-category": "perception", "source": "s", "comment": "nan", "split": "dev"}
    return {"index": index, "question": "What?", "hint": "nan", "answer": answer, **there, **names, **more}


def rotations(question, count=2, **more):
    turned = [TEXTS[turn:count] + TEXTS[:turn] for turn in range(count)]
    keys = ["A", *reversed("ABCD"[1:count])]
    return [
        row(question + turn * mmbench.TURN, options, answer=key, **more)
        for turn, (options, key) in enumerate(zip(turned, keys, strict=True))
    ]


def tsv(path, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows({name: "" if value == "nan" else value for name, value in each.items()} for each in rows)
    return path


def picture(colour="red"):
    return base64.b64encode(png(colour)).decode()


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "lmms_eval", "official", "lenient"),
    [
        (" B \n", "B", "B", "B"),
        ("b", None, None, "B"),
        ("A cat on a mat", "A", "A", "A"),
        ("B</s>", "B", None, "B"),  # only the ranking of places and a reader see it
        ("It could be B or C.", "B", None, None),
        ("The word of a rather long story about this dog", "B", None, "B"),
        ("E", "E", None, None),
        ("Cannot determine the answer", "C", None, None),  # the ranking takes any capital letter
        ("hm\0m", None, None, None),
    ],
)
def test_the_three_readings(output, lmms_eval, official, lenient):
    for protocol, letter in {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}.items():
        found = mmbench.score(output, row(answer=letter or "A"), protocol)
        assert (found.parsed, found.value) == (letter, float(letter is not None))
        assert found.status == ("ok" if letter else "unparsed")


@pytest.mark.parametrize("missing", ["nan", None, float("nan"), ""])
def test_options_and_hints_that_are_missing(missing):
    record = row(options=("yes", "no"), missing=missing, hint=missing)
    assert mmbench.prompt(record, "plain") == "What? There are several options:\nA. yes\nB. no"
    for protocol in ("lmms_eval", "official", "lenient"):
        assert mmbench.score("yes", record, protocol).parsed == "A"


def test_the_mirror_s_nan_is_a_text_for_lmms_eval_alone():
    record = row(options=("banana", "apple"))
    found = [mmbench.score("banana", record, protocol).parsed for protocol in ("lmms_eval", "official", "lenient")]
    assert found == [None, "A", "A"]


def test_a_judge_takes_the_place_of_the_ranking():
    record = row()
    assert mmbench.score("B/C", record).status == "ok"
    assert mmbench.score("B/C", record, judge=lambda output, record: "A") == Score(1.0, "A", "judged")


def test_guesses_draw_none_of_these_too():
    drawn = {mmbench.score("hm", row(index), guess="random").parsed for index in range(200)}
    assert drawn == set("ABCDE")
    assert {mmbench.score("hm", row(n), "lenient", guess="random").parsed for n in range(200)} == set("ABCD")


def test_scoring_changes_no_record_and_refuses_what_it_cannot_score():
    record = row()
    before = copy.deepcopy(record)
    for protocol in ("lmms_eval", "official", "lenient"):
        mmbench.score("the cat", record, protocol)
    assert record == before
    with pytest.raises(UserError, match="protocol: 'best'"):
        mmbench.score("A", record, "best")
    with pytest.raises(UserError, match="without keys"):
        mmbench.score("A", row(answer="nan"))
    with pytest.raises(UserError, match="index is 'x'"):
        mmbench.score("A", row(index="x"))


def test_prompts_in_other_styles():
    record = row(options=("yes", "no"), hint="Look.")
    tail = "Answer with the option's letter from the given choices directly."
    assert mmbench.prompt(record) == f"Look. What? There are several options:\nA. yes\nB. no\n\n{tail}"
    assert mmbench.prompt(record, "llava_script") == f"Look.\nWhat?\nA. yes\nB. no\n{tail}"
    expected = "Hint: Look.\nQuestion: What?\nOptions:\nA. yes\nB. no\n"
    assert mmbench.prompt(record, "vlmevalkit") == expected + "Please select the correct answer from the options above."
    with pytest.raises(UserError, match="style: 'qwen'"):
        mmbench.prompt(record, "qwen")


# ----------------------------------------------------------------------------------------------------------- aggregate


def test_a_question_is_right_when_every_rotation_is():
    records = [*rotations(1, 2), *rotations(2, 3, category="shape")]
    figures = mmbench.aggregate(records[::-1], [Score(float(record["index"] != 2_000_002)) for record in records[::-1]])
    assert (figures["accuracy"], figures["circular"], figures["vanilla"]) == (0.5, 0.5, 1.0)
    assert (figures["category/colour"], figures["category/shape"], figures["L2-category/perception"]) == (1, 0, 0.5)
    assert (figures["n"], figures["questions"]) == (5, 2)
    assert next(iter(figures)) == mmbench.HEADLINE
    assert "partial" not in figures


def test_the_interval_is_over_questions():
    records = [record for question in range(60) for record in rotations(question, 2)]
    figures = mmbench.aggregate(records, [Score(float(record["index"] % 2)) for record in records])
    spread = math.sqrt(0.25 / 60)  # of 60 questions, not of 120 rows
    assert figures["high"] - figures["low"] == pytest.approx(2 * 1.96 * spread, rel=0.15)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_incomplete_groups_are_refused_with_counts(lost):
    records = [*rotations(5, 3), *rotations(6, 2)]
    del records[lost]
    scores = [Score(1.0)] * 4
    with pytest.raises(UserError, match="1 of 2 questions lack some of their rotations, the first is index 5 with 2"):
        mmbench.aggregate(records, scores)
    figures = mmbench.aggregate(records, scores, allow_partial=True)
    assert (figures["accuracy"], figures["partial"]) == (1.0, 1.0)


def test_rows_that_occur_twice_and_lost_scores_are_refused():
    records = rotations(5, 2)
    with pytest.raises(UserError, match="index: 1 ids occur more than once, the first are 5"):
        mmbench.aggregate([*records, records[0]], [Score(1.0)] * 3)
    with pytest.raises(UserError, match="1 for 2 records"):
        mmbench.aggregate(records, [Score(1.0)])


# ---------------------------------------------------------------------------------------------------------------- data


def test_the_mirror(tmp_path):
    rows = [{**record, "image": cell("blue")} for record in rotations(3, 2)]
    write_mirror(tmp_path / "en" / "dev-00000-of-00001.parquet", rows)
    write_mirror(tmp_path / "en" / "test-00000-of-00001.parquet", [{**rows[0], "index": 9}])
    found = mmbench.load(tmp_path)
    assert [mmbench.record_id(record) for record in found] == ["3", "1000003"]
    assert {mmbench.group(record) for record in found} == {"3"}
    assert mmbench.pictures(found[0])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert "image" not in next(iter(mmbench.load(tmp_path, pictures=False)))


def test_an_early_upload_has_strings_for_indices_and_another_name(tmp_path):
    old = {("l2-category" if k == "L2-category" else k): v for k, v in row("12", image=cell()).items()}
    write_mirror(tmp_path / "data" / "dev-00000-of-00001.parquet", [old])
    (found,) = mmbench.load(tmp_path)
    assert (found["index"], found["L2-category"]) == (12, "perception")


def test_the_authors_file(tmp_path):
    rows = [row(4, image=picture("blue")), {**row(1_000_004, ("x", "y\tz")), "image": "4"}]
    tsv(tmp_path / "mmbench_dev_en_20231003.tsv", rows)
    tsv(tmp_path / "mmbench_dev_cn_20231003.tsv", rows[:1])
    tsv(tmp_path / "mmbench_test_en_20231003.tsv", rows[:1])
    found = list(mmbench.load(tmp_path))
    assert [record["index"] for record in found] == [4, 1_000_004]
    assert (found[1]["hint"], found[1]["B"], found[1]["C"]) == ("nan", "y\tz", "nan")
    # the second row's picture is named by the first one's index
    assert mmbench.pictures(found[1])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert mmbench.load(tmp_path / "mmbench_dev_en_20231003.tsv", pictures=False)[0]["answer"] == "A"


def test_a_reference_to_a_row_that_is_not_there(tmp_path):
    file = tsv(tmp_path / "mmbench_dev.tsv", [{**row(4), "image": "77"}])
    with pytest.raises(UserError, match="refers to index 77, which is not there"):
        mmbench.load(file)


def test_a_picture_that_does_not_decode_is_named(tmp_path):
    file = tsv(tmp_path / "mmbench_dev.tsv", [row(4, image=base64.b64encode(b"no picture at all" * 9).decode())])
    with pytest.raises(UserError, match="index 4 does not decode"):
        mmbench.pictures(mmbench.load(file)[0])[0].open()


def test_a_file_in_another_encoding(tmp_path):
    file = tsv(tmp_path / "mmbench_dev.tsv", [row(question="Où?", image=picture())], encoding="latin-1")
    with pytest.raises(UserError, match="not UTF-8"):
        mmbench.load(file)


def test_indices_that_occur_twice(tmp_path):
    file = tsv(tmp_path / "mmbench_dev.tsv", [row(4, image=picture()), row(4, image=picture())])
    with pytest.raises(UserError, match=r"index: 1 ids occur more than once, the first are 4"):
        mmbench.load(file)


def test_a_test_split_is_refused_for_scoring(tmp_path):
    file = tsv(tmp_path / "mmbench_test.tsv", [row(4, answer="", image=picture())])
    assert len(mmbench.load(file)) == 1
    with pytest.raises(UserError, match="there are no keys"):
        mmbench.load(file, pictures=False)


def test_other_data_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the parquet files of MMBench's split en/dev.*there is nothing"):
        mmbench.load(tmp_path)
    (tmp_path / "SEED-Bench.json").write_text("{}")
    with pytest.raises(UserError, match=r"there is SEED-Bench\.json"):
        mmbench.load(tmp_path)
    write_mirror(tmp_path / "data" / "dev-00000-of-00001.parquet", [{"question": "?", "answer": "yes"}])
    with pytest.raises(UserError, match="index, A, B, category, image missing; there are question, answer"):
        mmbench.load(tmp_path)
