from __future__ import annotations

import json

import pytest

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.shards.records import PicturePart, Record, TextPart, Turn, from_llava
from vargpt_lightning.utils.errors import UserError


def user(text: str = "Hello") -> Turn:
    return Turn("user", (TextPart(text),))


@pytest.mark.parametrize("record", [asked("a"), drawn("b")])
def test_json_and_back_is_the_same_record(record: Record) -> None:
    data = [part.data for part in record.pictures()]
    back = Record.from_json(json.loads(json.dumps(record.to_json())), data)
    assert back == record
    assert [part.data for part in back.pictures()] == data


def test_json_holds_no_bytes() -> None:
    assert asked("a").to_json()["turns"][0]["parts"][0] == {"picture": "a", "use": "seen"}


def test_pictures_by_use() -> None:
    record = Record("a", "s", asked("x").turns + drawn("y").turns)
    assert [part.key for part in record.pictures()] == ["x", "y"]
    assert [part.key for part in record.pictures("drawn")] == ["y"]


def test_llava_row() -> None:
    row = {
        "id": "000000033471",
        "image": "coco/train2017/000000033471.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat are the colors of the bus?"},
            {"from": "gpt", "value": "White and red."},
            {"from": "human", "value": "Where is it?"},
            {"from": "gpt", "value": "In a street."},
        ],
    }
    record = from_llava(row)
    picture = PicturePart("seen", "coco/train2017/000000033471.jpg")
    assert record.turns[0] == Turn("user", (picture, TextPart("What are the colors of the bus?")))
    assert [turn.role for turn in record.turns] == ["user", "assistant", "user", "assistant"]


def test_llava_row_with_the_picture_last_and_without_one() -> None:
    row = {"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "What is it?\n<image>"}]}
    assert from_llava(row).turns[0].parts == (TextPart("What is it?"), PicturePart("seen", "a.jpg"))
    row = {"id": "2", "conversations": [{"from": "human", "value": "Hi\n"}, {"from": "gpt", "value": "Hello"}]}
    assert from_llava(row).pictures() == []


def test_a_row_that_sees_and_draws() -> None:
    row = {
        "id": "7",
        "conversations": [
            {"from": "user", "value": "<image>Draw another one."},
            {"from": "assistant", "value": "Here it is:\n<image_gen>\nAnd more: <image_gen>"},
        ],
        "image": ["seen.png", "one.png", "two.png"],
    }
    record = from_llava(row)
    assert [(part.use, part.key) for part in record.pictures()] == [
        ("seen", "seen.png"),
        ("drawn", "one.png"),
        ("drawn", "two.png"),
    ]
    assert [part.text for part in record.turns[1].parts if isinstance(part, TextPart)] == ["Here it is:", "And more:"]


def test_a_placeholder_of_the_other_role_is_text() -> None:
    row = {"id": "7", "conversations": [{"from": "user", "value": "What does <image_gen> mean?"}]}
    assert from_llava(row).turns[0].text == "What does <image_gen> mean?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x1", "conversations": [{"from": "robot", "value": "Hi"}]}, "x1.*unknown role 'robot'"),
        ({"id": "x2", "conversations": [{"from": "human", "value": " \n"}]}, "x2.*empty"),
        ({"id": "x3", "image": "a.png", "conversations": [{"from": "human", "value": "Hi"}]}, "x3.*0 placeholders.*1"),
        ({"id": "x4", "conversations": [{"from": "human", "value": "<image>"}]}, "x4.*1 placeholder .*0"),
        ({"id": "x5", "conversations": []}, "x5.*no turns"),
        (
            {"id": "v1", "conversations": [{"from": "assistant", "value": "<image_gen>"}], "image": ["a", "b"]},
            "v1.*1 placeholder .*2 pictures",
        ),
    ],
)
def test_bad_llava_rows(row: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_llava(row)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (Turn("user", (PicturePart("drawn", "k"),)), "drawn picture in the user's turn"),
        (Turn("assistant", (PicturePart("seen", "k"),)), "seen picture in the assistant's turn"),
        (Turn("user", (PicturePart("lost", "k"),)), "'lost'; expected 'seen' or 'drawn'"),
        (Turn("tool", (TextPart("x"),)), "unknown role 'tool'"),
        (Turn("user", ()), "empty"),
    ],
)
def test_bad_turns(turn: Turn, message: str) -> None:
    with pytest.raises(UserError, match=f"record 'n'.*{message}"):
        Record("n", "s", (turn,))


def test_wrong_number_of_pictures() -> None:
    with pytest.raises(UserError, match=r"'a': 2 pictures given, its turns ask for 1"):
        asked("a").with_pictures([png(), png()])


@pytest.mark.parametrize("value", [{"id": "q"}, {"id": "q", "source": "s", "turns": [{"role": "user"}]}, {"turns": 3}])
def test_json_that_is_no_record(value: dict) -> None:
    with pytest.raises(UserError, match="expected id, source, turns"):
        Record.from_json(value)
