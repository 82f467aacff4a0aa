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
