from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, said, split, write_file, write_json
from vargpt_lightning.data.shards.records import PicturePart, TextPart
from vargpt_lightning.data.sources import llava, read_part
from vargpt_lightning.utils.errors import UserError

PICTURES = [
    "coco/train2017/000000033471.jpg",
    "gqa/images/2354786.jpg",
    "ocr_vqa/images/0060.jpg",
    "textvqa/train_images/a11.jpg",
    "vg/VG_100K/2.jpg",
]


def build(root: Path) -> Path:
    rows = [
        {"id": f"00{number}", "image": name, "conversations": said("<image>\nWhat is it?") + said("Sure?")}
        for number, name in enumerate(PICTURES)
    ]
    rows.append({"id": "wgByO4Y_0", "model": "", "conversations": said("Hello", "Hi there")})
    rows.append({"id": "000", "image": PICTURES[0], "conversations": said("Again?\n<image>")})
    for number, name in enumerate(PICTURES):
        write_file(root / name, jpeg(number))
    return write_json(root / llava.FILE, rows)


def test_rows_of_all_five_folders_and_of_text_become_records(tmp_path: Path) -> None:
    good, bad = split(llava.read(build(tmp_path)))
    assert not bad
    assert [part.key for record in good for part in record.pictures("seen")] == [*PICTURES, PICTURES[0]]
    assert [part.data for part in good[1].pictures()] == [jpeg(1)]
    assert [turn.role for turn in good[0].turns] == ["user", "assistant"] * 2
    assert [record.meta["kind"] for record in good] == ["understanding"] * 5 + ["text", "understanding"]
    assert [type(part) for part in good[6].turns[0].parts] == [TextPart, PicturePart]
    assert len({record.id for record in good}) == 7  # the file's own ids repeat
    assert good[6].meta["row_id"] == "000" and good[6].source == "llava"


def test_a_folder_with_the_file_will_do_and_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = build(tmp_path / "a")
    write_json(tmp_path / "a" / "other.json", [1, 2])
    moved = tmp_path / "b" / llava.FILE
    write_file(moved, path.read_bytes())
    good, _ = split(llava.read(tmp_path / "a"))
    assert split(llava.read(moved, pictures=tmp_path / "a"))[0] == good
    assert len(split(llava.read(moved))[0]) == 1  # the text alone


def test_pieces_together_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path)
    whole = list(llava.read(path))
    monkeypatch.setattr(llava, "chat_parts", lambda *a, **k: pytest.fail("parts are found once"))
    from vargpt_lightning.data.sources.json_rows import json_parts

    options = {"pictures": str(tmp_path), "archives": False}
    parts = json_parts("llava", path, options, rows=2)
    assert len(parts) == 4
    assert [row for part in parts for row in read_part(part)] == whole


def test_bad_rows_are_refused_with_their_reasons_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = build(tmp_path)
    rows = json.loads(path.read_text())
    write_file(tmp_path / "coco/broken.jpg", jpeg()[:100])
    bad_rows = [
        ({"id": "a", "image": "coco/none.jpg", "conversations": said("<image>")}, "not found"),
        ({"id": "b", "image": "coco/broken.jpg", "conversations": said("<image>")}, "no picture"),
        ({"id": "c", "image": "../up.jpg", "conversations": said("<image>")}, "refused"),
        ({"id": "d", "image": PICTURES[0], "conversations": said("none")}, "0 placeholders"),
        ({"id": "e", "image": 7, "conversations": said("<image>")}, "expected a path"),
        ({"id": "f", "conversations": said("lone \ud83d")}, "surrogate"),
        ({"id": "g"}, "no turns"),
        ("text", "a row is str"),
    ]
    write_json(path, [row for row, _ in bad_rows] + rows)
    good, bad = split(llava.read(path))
    assert len(good) == 7 and len(bad) == len(bad_rows)
    for row, (_, words) in zip(bad, bad_rows, strict=True):
        assert words in row.reason and row.source == "llava"
    json.dumps([row.reason for row in bad]).encode()
    assert bad[0].id == "a-0"


def test_a_placeholder_is_put_before_the_question_if_asked_for(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"id": 1, "image": "a.jpg", "conversations": said("What?")}])
    write_file(tmp_path / "a.jpg", jpeg())
    assert not split(llava.read(path))[0]
    (record,), _ = split(llava.read(path, add_placeholder=True))
    assert [type(part) for part in record.turns[0].parts] == [PicturePart, TextPart]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found; expected a JSON list"):
        list(llava.read(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"no \.json or \.jsonl"):
        list(llava.read(tmp_path))
