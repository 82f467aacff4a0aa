from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, said
from vargpt_lightning.data import sources
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.sources.base import Part, Rejected, RowError, conversation, row_id
from vargpt_lightning.utils.errors import UserError


def load(key: str) -> bytes:
    return jpeg()


def reason(turns: object, pictures: tuple[str, ...] = (), load: object = load) -> str:
    row = conversation("a-1", "test", turns, pictures, load)  # type: ignore[arg-type]
    assert isinstance(row, Rejected), row
    assert (row.id, row.source) == ("a-1", "test")
    return row.reason


def test_names_are_those_of_the_files_with_a_name() -> None:
    assert sources.names() == (
        *("captions", "imagenet", "instruct_pix2pix", "llava", "onevision", "sharegpt", "stylebooth"),
        "vargpt_instruct",
    )
    for name in sources.names():
        module = sources.get(name)
        assert name == module.NAME
        assert callable(module.read) and callable(module.parts) and callable(module.read_part)


def test_an_unknown_source_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'lava'; there are captions, .*llava"):
        sources.get("lava")


def test_a_conversation_becomes_a_record_with_its_pictures() -> None:
    row = conversation("a-1", "test", said("<image>\nRed?"), ["p.jpg"], load)
    assert isinstance(row, Record)
    assert [part.data for part in row.pictures("seen")] == [jpeg()]
    assert row.turns[0].text == "Red?" and row.meta["kind"] == "understanding"


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        (said("Hello", ""), "empty"),
        (said("  \n"), "empty"),
        ([{"from": "human", "value": None}], "empty"),
        ([{"from": "robot", "value": "Hi"}], "unknown role 'robot'"),
        ([{"value": "Hi"}], "unknown role 'None'"),
        (said("a\0b"), "NUL"),
        (said("a\ud800b"), "lone surrogate"),
        (said("<image>\nWhat?"), "1 placeholder .* for 0 pictures"),
        (said("Why?", "<image_gen>"), "1 placeholder .* for 0 pictures"),
        ([], "no turns"),
        (None, "no turns"),
        ("text", "no turns"),
        (["text"], "turn 0: 'text'"),
        ([{"from": "human", "value": 3}], "value is int"),
        ([{"from": "human", "value": "Hi"}], "no turn of the assistant"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(turns: object, words: str) -> None:
    import re

    assert re.search(words, reason(turns)), reason(turns)


def test_more_pictures_than_placeholders_are_refused() -> None:
    assert "1 placeholder" in reason(said("<image>"), ("a.jpg", "b.jpg"))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 no picture", jpeg()[: len(jpeg()) // 2]])
def test_a_picture_that_does_not_decode_is_refused(data: bytes) -> None:
    assert "p.jpg" in reason(said("<image>"), ("p.jpg",), lambda key: data)


def test_a_broken_archive_is_no_reason_to_refuse_a_row() -> None:
    def broken(key: str) -> bytes:
        raise UserError("x.tar: cut off")

    with pytest.raises(UserError, match=r"x\.tar"):
        conversation("a", "test", said("<image>"), ["p.jpg"], broken)

    def missing(key: str) -> bytes:
        raise RowError("not there")

    assert reason(said("<image>"), ("p.jpg",), missing) == "not there"


def test_ids_differ_where_corpora_repeat_theirs_and_stay_in_ascii() -> None:
    assert row_id("0007", 1) != row_id("0007", 2)
    assert row_id(None, 3) == "3"
    assert row_id("a b/ü\ud800", 4) == "a_b/__-4"
    assert len(row_id("x" * 500, 5)) < 100


def test_parts_travel_between_processes() -> None:
    part = Part("llava", Path("a.json"), 1, 2, 3, {"pictures": "x"})
    assert pickle.loads(pickle.dumps(part)) == part
    assert part.name == "llava a.json [1:2]"
