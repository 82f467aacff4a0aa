from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, said, split, write_file, write_json
from vargpt_lightning.data.sources import sharegpt

MESSAGES = [
    {"role": "user", "content": "<image>\n<image> Which?"},
    {"role": "assistant", "content": "This <image_gen>"},
]


def test_both_ways_of_writing_and_several_pictures_are_read(tmp_path: Path) -> None:
    for name in "abc":
        write_file(tmp_path / f"p/{name}.jpg", jpeg(ord(name)))
    rows = [
        {"messages": MESSAGES, "images": ["p/a.jpg", "p/b.jpg", "p/c.jpg"]},
        {"id": 5, "conversations": said("<image> one"), "images": [{"path": "p/a.jpg"}], "system": "Be brief."},
        {"conversations": said("text"), "images": []},
        {"conversations": said("text"), "images": None, "image": ""},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    good, bad = split(sharegpt.read(path))
    assert not bad
    assert [part.data for part in good[0].pictures()] == [jpeg(ord(name)) for name in "abc"]
    assert [part.use for part in good[0].pictures()] == ["seen", "seen", "drawn"]
    assert good[0].pictures()[0].key == "mine/p/a.jpg"
    assert [turn.role for turn in good[1].turns] == ["system", "user", "assistant"]
    assert [record.meta["kind"] for record in good] == ["mixed", "understanding", "text", "text"]


def test_files_of_a_folder_are_read_in_order_with_ids_that_differ(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_json(tmp_path / f"{name}.json", [{"id": "1", "conversations": said(f"from {name}")}])
    good, bad = split(sharegpt.read(tmp_path))
    assert not bad
    assert [record.turns[0].text for record in good] == ["from a", "from b"]
    assert [record.id for record in good] == ["1-a-0", "1-b-0"]


@pytest.mark.parametrize("nothing", [[], None, "", [None], [""], {"path": None}, [{"path": None}]])
def test_an_empty_list_of_pictures_does_not_hide_the_other_key(tmp_path: Path, nothing: object) -> None:
    write_file(tmp_path / "p.jpg", jpeg())
    turns = [{"role": "user", "content": "<image>\nWhich?"}, {"role": "assistant", "content": "Red"}]
    text = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [
        {"image": "p.jpg", "images": nothing, "messages": turns},
        {"image": nothing, "images": ["p.jpg"], "messages": turns},
    ]
    path = write_json(tmp_path / "a.json", [*rows, {"images": nothing, "image": nothing, "messages": text}])
    good, bad = split(sharegpt.read(path))
    assert not bad and [len(record.pictures()) for record in good] == [1, 1, 0]


def test_chosen_and_rejected_answers_make_a_pair(tmp_path: Path) -> None:
    """As LLaMA-Factory has them: pictures in the order of their placeholders, answers as turns, or as texts."""
    for name in ("seen", "right", "wrong"):
        write_file(tmp_path / f"{name}.jpg", jpeg())
    asked = {"from": "human", "value": "<image>\nDraw it in red."}
    drawn = {name: {"from": "gpt", "value": f"{name}: <image_gen>"} for name in ("chosen", "rejected")}
    first = {"conversations": [asked], **drawn, "images": ["seen.jpg", "right.jpg", "wrong.jpg"]}
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    second = {"messages": turns, "chosen": [{"role": "assistant", "content": "Hello"}], "rejected": "Go away"}
    good, bad = split(sharegpt.read(write_json(tmp_path / "pairs.json", [first, second])))
    assert not bad and [record.kind for record in good] == ["pair", "pair"]
    pictures, words = good
    assert [part.name for part in pictures.pictures()] == [f"pairs/{name}.jpg" for name in ("seen", "right", "wrong")]
    assert [part.name for part in pictures.chosen.pictures()] == ["pairs/seen.jpg", "pairs/right.jpg"]
    assert pictures.other is not None and [part.name for part in pictures.other.pictures()][1] == "pairs/wrong.jpg"
    assert words.turns[-1].text == "Hello" and words.rejected is not None and words.rejected.text == "Go away"
    assert type(words).from_json(words.to_json()) == words
    assert list(words.texts())[-1] == "Go away"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"chosen": "Hello"}, "chosen without rejected; expected a pair"),
        ({"rejected": "Hello", "chosen": ""}, "rejected without chosen; expected a pair"),
        ({"chosen": 3, "rejected": "No"}, "chosen is '3'; expected an answer"),
        ({"chosen": "Yes", "rejected": "<image_gen>"}, "1 placeholder"),
    ],
)
def test_half_a_pair_is_refused(tmp_path: Path, answers: dict[str, object], words: str) -> None:
    row = {"conversations": [{"from": "human", "value": "Hi"}], **answers}
    good, bad = split(sharegpt.read(write_json(tmp_path / "pairs.json", [row])))
    assert not good and words in bad[0].reason
