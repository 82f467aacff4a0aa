"""SEED-Bench: three readings, figures by kind and type, and its two layouts."""

from __future__ import annotations

import copy
import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import seedbench
from vargpt_lightning.utils.errors import UserError


def row(number=1, answer="B", kind="image", type=1, **more):
    options = dict(zip(seedbench.OPTIONS, ("a cat", "a dog", "red", "dark red"), strict=True))
    names = {"question_id": f"{type}_{number}", "question_type_id": type, "data_type": kind, "data_id": f"{number}.png"}
    return {"question": "What?", "answer": answer, **options, **names, "segment": [], **more}


def authors(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    data = {"questions": rows, "question_type": {"Scene Understanding": 1}}
    (folder / "SEED-Bench.json").write_text(json.dumps(data))
    for each in rows:
        write_picture(folder / "SEED-Bench-image" / str(each.get("data_id", 0)), "blue")
    return folder


# ------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize(
    ("output", "lmms_eval", "official", "lenient"),
    [
        ("\nB ", "B", "B", "B"),
        ("b", "B", None, "B"),
        ("B.", "B", None, "B"),
        ("because of C", "B", None, "C"),  # the first character, whatever it belongs to
        ("The answer is B", None, None, "B"),
        ("(B)", None, None, "B"),
        ("E", None, None, None),
        ("\0B", None, None, "B"),
    ],
)
def test_the_three_readings(output, lmms_eval, official, lenient):
    for protocol, letter in {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}.items():
        found = seedbench.score(output, row(answer=letter or "A"), protocol)
        assert (found.parsed, found.value) == (letter, float(letter is not None))
        assert found.status == ("ok" if letter else "unparsed")


def test_scoring_changes_no_record_and_refuses_what_it_cannot_score():
    record = row()
    before = copy.deepcopy(record)
    assert seedbench.score("", record).status == "empty"
    assert record == before
    with pytest.raises(UserError, match="answer is 2; expected one of A, B, C, D"):
        seedbench.score("B", row(answer=2))
    with pytest.raises(UserError, match="without keys"):
        seedbench.score("B", row(answer=None))
    with pytest.raises(UserError, match="protocol: 'likelihood'"):
        seedbench.score("B", record, "likelihood")
    with pytest.raises(UserError, match="style: 'qwen'"):
        seedbench.prompt(record, "qwen")
    assert seedbench.prompt(record, "plain") == "What?\nA. a cat\nB. a dog\nC. red\nD. dark red"


def test_the_headline_is_of_questions_about_pictures():
    records = [row(1), row(2, type=5), row(3, kind="video", type=10), row(4, kind="video", type=10)]
    figures = seedbench.aggregate(records, [Score(1.0), Score(0.0, None, "empty"), Score(0.0), Score(0.0)])
    assert (figures["accuracy"], figures["seed_image"], figures["seed_video"], figures["seed_all"]) == (
        0.5,
        0.5,
        0,
        0.25,
    )
    assert (figures["accuracy/scene"], figures["accuracy/counting"], figures["accuracy/action recognition"]) == (
        1,
        0,
        0,
    )
    assert (figures["n"], figures["n_image"], figures["n_video"], figures["empty"]) == (4, 2, 2, 1)
    assert (figures["low"], figures["high"]) == (0.0, 1.0)
    with pytest.raises(UserError, match="1 for 4 records"):
        seedbench.aggregate(records, [Score(1.0)])
    with pytest.raises(UserError, match="question_id: 1 ids occur more than once, the first are 1_1"):
        seedbench.aggregate([row(1), row(1)], [Score(1.0)] * 2)


# ---------------------------------------------------------------------------------------------------------------- data


def test_the_mirror_without_its_videos(tmp_path):
    rows = [row(1, image=[cell("blue")]), row(2, kind="video", type=11, image=[cell(), cell("green")])]
    write_mirror(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    (found,) = seedbench.load(tmp_path)
    assert [picture.open().getpixel((0, 0)) for picture in seedbench.pictures(found)] == [(0, 0, 255)]
    assert "image" not in seedbench.load(tmp_path, pictures=False)[0]
    both = seedbench.load(tmp_path, videos=True)
    assert [len(seedbench.pictures(record)) for record in both] == [1, 2]


def test_the_authors_layout(tmp_path):
    rows = [row(1), row(2, kind="video", type=11), row(3)]
    del rows[2]["data_type"]  # the type tells it
    found = seedbench.load(authors(tmp_path, rows))
    assert [seedbench.record_id(record) for record in found] == ["1_1", "1_3"]
    assert seedbench.pictures(found[1])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert len(seedbench.load(tmp_path / "SEED-Bench.json", pictures=False)) == 2


def test_authors_files_that_cannot_be_used(tmp_path):
    lacking = row(1)
    del lacking["choice_c"]
    with pytest.raises(UserError, match="question 1: choice_c missing; there are question"):
        seedbench.load(authors(tmp_path / "lacking", [lacking]))
    with pytest.raises(UserError, match="question_id: 1 ids occur more than once"):
        seedbench.load(authors(tmp_path / "twice", [row(1), row(1)]))
    with pytest.raises(UserError, match="expected the name of a file inside"):
        list(seedbench.load(authors(tmp_path / "outside", [row(1, data_id="../../x.png")])))
    (tmp_path / "SEED-Bench.json").write_text('{"questions": 3}')
    with pytest.raises(UserError, match="expected an object with a list 'questions'"):
        seedbench.load(tmp_path)
    (tmp_path / "SEED-Bench.json").write_bytes(b'{"questions": ["\xe9"]}')
    with pytest.raises(UserError, match="not UTF-8"):
        seedbench.load(tmp_path)
    (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": [row(1)]}))
    with pytest.raises(UserError, match=r"SEED-Bench-image: there is no such folder"):
        seedbench.load(tmp_path)


def test_other_data_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the parquet files of SEED-Bench's split test, or SEED-Bench\.json"):
        seedbench.load(tmp_path)
    write_mirror(tmp_path / "test-00000-of-00001.parquet", [{"question": "?", "answer": "A", "question_id": "1"}])
    with pytest.raises(UserError, match="choice_a, choice_b, choice_c, choice_d, data_type, image missing"):
        seedbench.load(tmp_path)
