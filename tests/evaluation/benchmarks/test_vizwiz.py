"""VizWiz-VQA: unanswerable questions, accuracy by category, its two layouts and bad input."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.evaluation.benchmarks import vizwiz
from vargpt_lightning.utils.errors import UserError

KEYS = ["unanswerable"] * 4 + ["coffee"] * 3 + ["K cups"] * 3


def question(number, keys=KEYS, **more):
    row = {"question_id": f"VizWiz_val_{number:08d}", "question": "What IS this?", "answers": list(keys)}
    return {**row, "category": "other", **more}


def mirror(root, rows, split="val"):
    write_mirror(root / "data" / f"{split}-00000-of-00001.parquet", [{**row, "image": cell()} for row in rows])
    return root


def authors(root, rows, split="val", folder=""):
    entries = []
    for row in rows:
        people = [{"answer": key, "answer_confidence": "yes"} for key in row["answers"]]
        entry = {"image": f"{row['question_id']}.jpg", "question": row["question"]}
        known = {"answers": people, "answer_type": row["category"], "answerable": 1}
        entries.append(entry | known if split == "val" else entry)
        write_picture(root / split / entry["image"])
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / f"{split}.json").write_text(json.dumps(entries))
    return root


def test_unanswerable_is_an_answer_like_any_other():
    for output in ("unanswerable", "Unanswerable.", " UNANSWERABLE\n"):
        assert vizwiz.score(output, question(1)).value == 1
    for output in ("unsuitable", "unanswerable image", "I cannot tell"):
        assert vizwiz.score(output, question(1)).value == 0
    assert vizwiz.score("k-cups", question(1)).value == pytest.approx(0.9)


def test_the_authors_code_takes_ten_equal_keys_as_they_are():
    assert vizwiz.score("Unanswerable", question(1, ["unanswerable"] * 10), "official").value == 0
    assert vizwiz.score("unanswerable", question(1, ["unanswerable"] * 10), "official").value == 1


def test_styles():
    told = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    short = "\nAnswer the question using a single word or phrase."
    assert vizwiz.prompt(question(1)) == "What is this?" + told + short
    assert vizwiz.prompt(question(1), "plain") == "What IS this?"
    with pytest.raises(UserError, match="style: 'chat'"):
        vizwiz.prompt(question(1), "chat")


def test_accuracy_by_category_and_the_share_that_gave_up():
    records = [question(1), question(2, category="number"), question(3, category="number")]
    scores = [
        vizwiz.score(output, each) for output, each in zip(("Unanswerable", "tea", "coffee"), records, strict=True)
    ]
    figures = vizwiz.aggregate(records, scores)
    assert figures["accuracy"] == pytest.approx(1.9 / 3)
    assert figures["accuracy/other"] == 1 and figures["accuracy/number"] == pytest.approx(0.45)
    assert figures["said_unanswerable"] == pytest.approx(1 / 3)
    official = [vizwiz.score("Unanswerable", question(1, ["unanswerable"] * 10), "official")]
    assert vizwiz.aggregate(records[:1], official, "official")["said_unanswerable"] == 1


@pytest.mark.parametrize("write", [mirror, authors])
def test_layouts(tmp_path, write):
    rows = vizwiz.load(write(tmp_path, [question(n, category="number") for n in (0, 7)]))
    assert [vizwiz.record_id(row) for row in rows] == ["VizWiz_val_00000000", "VizWiz_val_00000007"]
    assert [{**row, "image": None} for row in rows] == [
        question(n, category="number") | {"image": None} for n in (0, 7)
    ]
    assert vizwiz.pictures(rows[1])[0].open().size == (4, 3)
    assert "image" not in vizwiz.load(tmp_path, pictures=False)[0]


def test_the_annotations_may_have_a_folder_of_their_own(tmp_path):
    rows = vizwiz.load(authors(tmp_path, [question(1)], folder="Annotations"))
    assert vizwiz.pictures(rows[0])[0].open().size == (4, 3)


@pytest.mark.parametrize("write", [mirror, authors])
@pytest.mark.parametrize("answers", [None, []])
def test_the_test_split_can_be_asked_not_scored(tmp_path, write, answers):
    row = question(1)
    if write is mirror:
        row = {name: row[name] for name in ("question_id", "question")} | {"answers": answers}
    rows = vizwiz.load(write(tmp_path, [row], "test"))
    assert vizwiz.prompt(rows[0]) and vizwiz.pictures(rows[0])[0].open()
    with pytest.raises(UserError, match="a test split can be asked"):
        vizwiz.aggregate(rows, [vizwiz.score("tea", row) for row in rows])


def test_a_wrong_directory(tmp_path):
    (tmp_path / "dev.tsv").write_text("index\n")
    with pytest.raises(UserError, match=r"is not VizWiz-VQA .*no val-\*.parquet, no val.json; there are dev.tsv"):
        vizwiz.load(tmp_path)
    with pytest.raises(UserError, match="answer_type are columns of another benchmark"):
        vizwiz.load(mirror(tmp_path / "b", [question(1, answer_type="other")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"questions": []}', "got dict, expected a list"),
        (
            b'[{"image": "a.jpg", "text": "What?"}]',
            "entry 1: question, answers, answer_type missing; there are image, text",
        ),
        ('[{"image": "é"}]'.encode("latin-1"), "not UTF-8"),
        (b'[{"image": "../../a.jpg", "question": "", "answers": [], "answer_type": ""}]', "inside"),
    ],
)
def test_other_contents_and_encodings(tmp_path, content, message):
    (tmp_path / "val.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(vizwiz.load(tmp_path))


def test_other_types_become_the_documented_ones(tmp_path):
    people = [{"answer": key, "answer_confidence": "yes"} for key in KEYS]
    (row,) = vizwiz.load(mirror(tmp_path, [question(1) | {"question_id": 12, "answers": people}]))
    assert (row["question_id"], row["answers"]) == ("12", KEYS)


@pytest.mark.parametrize("write", [mirror, authors])
def test_repeated_ids(tmp_path, write):
    with pytest.raises(UserError, match="question_id are repeated, such as VizWiz_val_00000003"):
        vizwiz.load(write(tmp_path, [question(3), question(3)]))
