"""MMMU: letters and open answers as both parsers read them, keys that are lists, and its three layouts."""

from __future__ import annotations

import copy
import json
import time

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror
from vargpt_lightning.evaluation.base.benchmark import Score
from vargpt_lightning.evaluation.benchmarks import mmmu
from vargpt_lightning.evaluation.rules import mmmu_answers
from vargpt_lightning.utils.errors import UserError

LONG = 100_000


def choice(number=1, options="['cat', 'dog', 'a red one']", answer="B", subject="Art", **more):
    row = {"id": f"validation_{subject}_{number}", "question": "What is in <image 1>?", "options": options}
    return {**row, "answer": answer, "question_type": "multiple-choice", "subfield": "x", **more}


def open_one(answer, number=1, subject="Math", **more):
    return {**choice(number, "[]", answer, subject, **more), "question_type": "open"}


def with_pictures(row, *colours):
    cells = [cell(colour) for colour in colours]
    return {**row, **dict(zip(mmmu.PICTURES, [*cells, *[None] * 7], strict=False))}


# ------------------------------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize(
    ("output", "lmms_eval", "official", "lenient"),
    [
        ("B", "B", "B", "B"),
        ("'B,", "B", "B", "B"),
        ("B,.", None, None, "B"),  # the marks are taken off once each, in their order
        ("(A) or (B)", "B", "B", None),  # the last one
        ("B A B C", "C", "C", None),
        ("USA by far", "A", None, None),  # a blank before the letter is wanted by the authors alone
        ("so B. Yes", "B", None, "B"),
        ("C.x A.y", "A", None, "C"),  # none stands alone, so the first
        ("b", None, None, "B"),
        ("the dog", None, None, "B"),  # too short to look for texts
        ("i see a cat and then a dog", "B", "B", None),  # the text that comes last
        ("hm\0", None, None, None),
    ],
)
def test_the_three_readings(output, lmms_eval, official, lenient):
    for protocol, letter in {"lmms_eval": lmms_eval, "official": official, "lenient": lenient}.items():
        found = mmmu.score(output, choice(answer=letter or "A"), protocol)
        assert (found.parsed, found.value) == (letter, float(letter is not None))
        assert found.status == ("ok" if letter else "unparsed")


def test_guesses_are_named_and_depend_on_the_id_alone():
    drawn = [mmmu.score("", choice(number), guess="random") for number in range(100)]
    assert {one.parsed for one in drawn} == set("ABC")
    assert {one.status for one in drawn} == {"guessed"}
    assert [mmmu.score("", choice(number), guess="random") for number in range(100)] == drawn
    assert mmmu.score("", choice()).status == "empty"
    assert mmmu.score("", open_one("8"), guess="random").status == "empty"  # the references draw letters alone
    assert mmmu.score("?", choice(), judge=lambda output, record: "B") == Score(1.0, "B", "judged")


# -------------------------------------------------------------------------------------------------------- open answers


@pytest.mark.parametrize(
    ("key", "output", "references", "lenient"),
    [
        ("8", "18", 0, 0),
        ("8", "It is 8 apples", 1, 1),
        ("8", "8 or 9", 1, 1),  # every number is an answer
        ("0.333", "The result is .33", 1, 1),
        ("0.5", "1/2", 0, 1),
        ("1200", "$1,200", 1, 1),
        ("1e5", "100000", 1, 1),
        ("1,000,000", "1000000", 1, 1),
        ("yes", "The eyes have it", 1, 0),  # a key anywhere in the text, for the references
        ("P", "parallelogram", 0, 0),  # a key of one character wants a blank beside it
        ("P", "P", 1, 1),
        ("mitochondria", "so it is thus the Mitochondria.", 1, 1),
        ("red", "red\nso blue", 0, 1),  # a line without a telling word is dropped when another has one
        ("inf", "nan", 0, 0),
        ("8", "8\0", 1, 1),
    ],
)
def test_open_answers(key, output, references, lenient):
    assert mmmu.score(output, open_one(key)).value == references
    assert mmmu.score(output, open_one(key), "official").value == references
    assert mmmu.score(output, open_one(key), "lenient").value == lenient


@pytest.mark.parametrize("key", ["['24/7', '3.429']", ["24/7", "3.429"]])
def test_keys_that_are_lists(key):
    for output in ("24/7", "it is 3.43"):
        assert mmmu.score(output, open_one(key), "official").value == 1
        assert mmmu.score(output, open_one(key), "lenient").value == 1
        assert mmmu.score(output, open_one(key)).value == float(isinstance(key, list))  # lmms-eval parses no key


def test_what_was_taken_for_the_answer_is_kept_short():
    found = mmmu.score("so " + "x" * LONG, open_one("8"))
    assert found.parsed == ("x" * 200,)
    assert len(json.dumps(mmmu.score("1 2 " * LONG, open_one("8")).parsed)) < 10_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234", ["1,234", "234"]),
        ("1,2345", ["2345"]),
        ("-3.5e-7", ["-3.5e-7", "-3", "-7"]),
        ("12.345e5", ["12.345e5", "12", "5"]),
        ("1.2.3", ["1.2", ".3"]),
        ("7x", []),
        ("5-3", ["5", "-3"]),
    ],
)
def test_numbers(text, found):
    assert mmmu_answers.numbers(text) == found


@pytest.mark.parametrize("piece", ["1", "1,", "1,111,", "9.", "99e9 ", "1 ", "is \n", " ", "-", "\0", "A", "A ", "(B"])
def test_long_outputs_are_read_fast(piece):
    output = (piece * (LONG // len(piece) + 1))[: LONG - 1] + "x"
    began = time.process_time()
    for protocol in ("lmms_eval", "official", "lenient"):
        mmmu.score(output, choice(), protocol)
        mmmu.score(output, open_one("yes"), protocol)
    assert time.process_time() - began < 5


# ------------------------------------------------------------------------------------------------------------- records


def test_options_in_other_types():
    for options in ("['cat', 'dog']", ["cat", "dog"], ("cat", "dog")):
        assert mmmu.prompt(choice(options=options), "plain") == "What is in <image 1>?\nA. cat\nB. dog"
    with pytest.raises(UserError, match=r"options is 'cat, dog'; expected a list written as a string"):
        mmmu.prompt(choice(options="cat, dog"))
    for missing in ("[]", None, "nan"):
        with pytest.raises(UserError, match="a multiple-choice question without options"):
            mmmu.score("A", choice(options=missing))


def test_keys_in_other_types():
    assert mmmu.score("1200", open_one(1200)).value == 1
    for missing in ("nan", None, float("nan"), ""):
        with pytest.raises(UserError, match="without keys"):
            mmmu.score("A", choice(answer=missing))


def test_scoring_changes_no_record_and_knows_its_protocols():
    record = choice(options=["cat", "dog"])
    before = copy.deepcopy(record)
    for protocol in ("lmms_eval", "official", "lenient"):
        mmmu.score("a CAT", record, protocol)
    assert record == before
    with pytest.raises(UserError, match="protocol: 'best'"):
        mmmu.score("A", record, "best")
    with pytest.raises(UserError, match="style: 'qwen'"):
        mmmu.prompt(record, "qwen")


def test_pictures_are_those_that_are_named_in_the_order_of_their_numbers(tmp_path):
    row = choice(options="['<image 3>', '<image 2>']", question="Which is <image 3>?")
    write_mirror(tmp_path / "validation.parquet", [with_pictures(row, "red", "green", "blue")])
    (found,) = mmmu.load(tmp_path)
    assert [one.open().getpixel((0, 0)) for one in mmmu.pictures(found)] == [(0, 128, 0), (0, 0, 255)]
    with pytest.raises(UserError, match="<image 1> is named, but there is no such picture"):
        mmmu.pictures(choice())


# ----------------------------------------------------------------------------------------------------------- aggregate


def test_figures_are_by_question_and_rounded():
    records = [choice(1), choice(2), open_one("8", 3, "Basic_Medical_Science")]
    figures = mmmu.aggregate(records, [Score(1.0), Score(0.0, None, "unparsed"), Score(1.0)])
    assert figures["accuracy"] == 0.66667
    assert (figures["accuracy/Art and Design"], figures["accuracy/Health and Medicine"]) == (0.5, 1.0)
    assert (figures["accuracy/subject/Art"], figures["accuracy/subject/Basic_Medical_Science"]) == (0.5, 1.0)
    assert (figures["accuracy/type/open"], figures["n"], figures["unparsed"]) == (1.0, 3, 1)
    assert figures["low"] <= figures["accuracy"] <= figures["high"]


def test_records_that_cannot_be_put_together_are_refused():
    with pytest.raises(UserError, match="id: 1 ids occur more than once, the first are validation_Art_1"):
        mmmu.aggregate([choice(1), choice(1)], [Score(1.0)] * 2)
    with pytest.raises(UserError, match="subject 'Cooking' is none of the 30"):
        mmmu.aggregate([choice(1, subject="Cooking")], [Score(1.0)])
    with pytest.raises(UserError, match="expected <split>_<Subject>_<number>"):
        mmmu.aggregate([choice(id="Art")], [Score(1.0)])
    with pytest.raises(UserError, match="2 for 1 records"):
        mmmu.aggregate([choice(1)], [Score(1.0)] * 2)


# ---------------------------------------------------------------------------------------------------------------- data


def test_the_merged_mirror(tmp_path):
    rows = [with_pictures(choice(1), "blue"), with_pictures(open_one("['a', 'b']", 2), "red")]
    write_mirror(tmp_path / "data" / "validation-00000-of-00001.parquet", rows)
    write_mirror(tmp_path / "data" / "dev-00000-of-00001.parquet", rows[:1])
    found = list(mmmu.load(tmp_path))
    assert [record["id"] for record in found] == ["validation_Art_1", "validation_Math_2"]
    assert found[1]["answer"] == "['a', 'b']"
    assert mmmu.pictures(found[0])[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert not any(name.startswith("image_") for name in mmmu.load(tmp_path, pictures=False)[0])


def by_subject(folder, subjects):
    for subject in subjects:
        row = with_pictures(open_one("8", 1, subject), "red")
        write_mirror(folder / subject / "validation-00000-of-00001.parquet", [row])
    return folder


def test_the_authors_folders_with_their_keys(tmp_path):
    by_subject(tmp_path, mmmu.SUBJECTS)
    keys = {"validation_Math_1": {"question_type": "short-answer", "ground_truth": ["24/7", "3.429"]}}
    (tmp_path / "answer_dict_val.json").write_text(json.dumps(keys))
    found = {mmmu.subject(record): record for record in mmmu.load(tmp_path)}
    assert len(found) == 30
    assert (found["Math"]["answer"], found["Art"]["answer"]) == ("['24/7', '3.429']", "8")
    assert len(mmmu.pictures(found["Music"])) == 1
    (tmp_path / "answer_dict_val.json").write_text("[]")
    with pytest.raises(UserError, match="expected an object of ids"):
        mmmu.load(tmp_path)


def test_data_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="or the folders of its 30 subjects"):
        mmmu.load(tmp_path)
    by_subject(tmp_path / "some", ["Art", "Math"])
    with pytest.raises(UserError, match="28 of the 30 subjects missing: Accounting"):
        mmmu.load(tmp_path / "some")
    write_mirror(tmp_path / "twice" / "validation.parquet", [choice(1), choice(1)])
    with pytest.raises(UserError, match="id: 1 ids occur more than once"):
        mmmu.load(tmp_path / "twice")
    write_mirror(tmp_path / "other" / "validation.parquet", [{"question": "?", "answer": "A", "A": "cat"}])
    with pytest.raises(UserError, match="id, options, question_type missing; there are question, answer, A"):
        mmmu.load(tmp_path / "other")
