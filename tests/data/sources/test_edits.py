"""Pictures that are changed as an instruction says: InstructPix2Pix's two layouts, and StyleBooth's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.conftest import jpeg, split, write_parquet
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.data.sources import instruct_pix2pix, sharegpt, stylebooth
from vargpt_lightning.utils.errors import UserError


def pair(record: Record) -> tuple[str, bytes | None, bytes | None]:
    """What is asked, the picture that is seen and the one that is drawn."""
    (seen,), (drawn,) = record.pictures(SEEN), record.pictures(DRAWN)
    assert [turn.role for turn in record.turns] == ["user", "assistant"] and record.meta["kind"] == "edit"
    assert record.turns[0].parts[0] is seen and record.turns[1].text
    return record.turns[0].text, seen.data, drawn.data


def build_folder(root: Path) -> Path:
    seeds: list[Any] = [["shard-00/0001", ["11", "12", "13"]], ["shard-00/0002", ["21"]], ["shard-01/0001", ["31"]]]
    for number, (folder, some) in enumerate(seeds):
        (root / folder).mkdir(parents=True)
        prompt = {"input": "a", "edit": f"make it {number}", "output": "b"}
        (root / folder / "prompt.json").write_text(json.dumps(prompt))
        for seed in some:
            for side in (0, 1):
                (root / folder / f"{seed}_{side}.jpg").write_bytes(jpeg(10 * int(seed) + side))
    (root / "seeds.json").write_text(json.dumps(seeds))
    return root


def test_the_authors_folder(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "clip-filtered-dataset")
    good, bad = split(instruct_pix2pix.read(folder))
    assert not bad and len({record.id for record in good}) == 5
    assert [pair(record) for record in good[:2]] == [
        ("make it 0", jpeg(110), jpeg(111)),
        ("make it 0", jpeg(120), jpeg(121)),
    ]
    assert [pair(record)[0] for record in split(instruct_pix2pix.read(folder, pairs=1))[0]] == [
        "make it 0",
        "make it 1",
        "make it 2",
    ]
    assert good == split(instruct_pix2pix.read(folder))[0], "the wording follows from the seed"


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    rows = [
        {"original_prompt": "x", name: {"bytes": jpeg(n), "path": None}, "edit_prompt": f" make it {n} ",
         "edited_image": {"bytes": jpeg(n + 1), "path": None}}
        for n, name in ((0, "original_image"), (2, "original_image"))
    ]  # fmt: skip
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", rows)
    good, bad = split(instruct_pix2pix.read(tmp_path))
    assert not bad and [pair(record) for record in good] == [
        ("make it 0", jpeg(0), jpeg(1)),
        ("make it 2", jpeg(2), jpeg(3)),
    ]
    other = [{"input_image": jpeg(5), "edit_prompt": "more", "edited_image": jpeg(6)}]
    write_parquet(tmp_path / "other/train.parquet", other)
    assert [pair(record) for record in split(instruct_pix2pix.read(tmp_path / "other"))[0]] == [
        ("more", jpeg(5), jpeg(6))
    ]


def test_edits_without_a_picture_or_an_instruction_are_refused(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"original_image": None, "edit_prompt": "more", "edited_image": jpeg(1)},
        {"original_image": jpeg(1), "edit_prompt": "more", "edited_image": None},
        {"original_image": jpeg(1), "edit_prompt": " ", "edited_image": jpeg(1)},
        {"original_image": jpeg(1), "edit_prompt": "more", "edited_image": b"none"},
    ]
    write_parquet(tmp_path / "rows/train.parquet", rows)
    good, bad = split(instruct_pix2pix.read(tmp_path / "rows"))
    assert not good and [word in each.reason for word, each in zip(
        ("no picture to change", "no picture that is changed", "the instruction is ' '", "no picture"), bad, strict=True
    )] == [True] * 4  # fmt: skip
    folder = build_folder(tmp_path / "folder")
    (folder / "shard-00/0002/21_0.jpg").unlink()
    (folder / "shard-01/0001/prompt.json").write_text("{")
    seeds = [*json.loads((folder / "seeds.json").read_text()), ["../folder", ["1"]], "x"]
    (folder / "seeds.json").write_text(json.dumps(seeds))
    good, bad = split(instruct_pix2pix.read(folder))
    assert len(good) == 3 and len(bad) == 4
    assert "21_0.jpg" in bad[0].reason and all("prompt.json" in each.reason for each in bad[1:])
    write_parquet(tmp_path / "bare/train.parquet", [{"edit_prompt": "a", "edited_image": jpeg(1)}])
    with pytest.raises(UserError, match="no column original_image"):
        list(instruct_pix2pix.read(tmp_path / "bare"))
    with pytest.raises(UserError, match="pairs=0; expected 1 or more"):
        list(instruct_pix2pix.read(folder, pairs=0))
    (folder / "seeds.json").write_text("{}")
    with pytest.raises(UserError, match="holds dict; expected a list of"):
        list(instruct_pix2pix.read(folder))


TABLE = """EnStyle,ZhStyle,ShortStyleName,Target:FILE,Source:FILE,SearchResult:DICT
sai-lowpoly,x,lowpoly,images/t1.jpg,images/s1.jpg,{'a': 1, "b": [2, "c"]}
"oil, on wood",x,oil,images/t2.jpg,images/s2.jpg,
broken,x
,x,none,images/t1.jpg,images/s1.jpg,{}
lost,x,lost,images/t9.jpg,images/s1.jpg,{}
"""


def test_styles(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "train.csv").write_text(TABLE)
    for number in (1, 2):
        (tmp_path / f"images/s{number}.jpg").write_bytes(jpeg(number))
        (tmp_path / f"images/t{number}.jpg").write_bytes(jpeg(10 + number))
    good, bad = split(stylebooth.read(tmp_path))
    found = [pair(record) for record in good]
    assert [each[1:] for each in found] == [(jpeg(1), jpeg(11)), (jpeg(2), jpeg(12))]
    assert "sai-lowpoly" in found[0][0] and "oil, on wood" in found[1][0]
    assert [next(word for word in ("2 cells", "EnStyle ''", "not found") if word in each.reason) for each in bad] == [
        "2 cells",
        "EnStyle ''",
        "not found",
    ]
    both, _ = split(stylebooth.read(tmp_path / "train.csv", reverse=True))
    assert [pair(record)[1:] for record in both[:2]] == [(jpeg(1), jpeg(11)), (jpeg(11), jpeg(1))]
    (tmp_path / "train.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="no column EnStyle, Target:FILE, Source:FILE"):
        list(stylebooth.read(tmp_path))


def test_messages_with_both_uses_of_pictures(tmp_path: Path) -> None:
    """Rows as VARGPT-v1.1 has them, of a picture that is seen inside of the instruction and one that is drawn."""
    row = {
        "messages": [
            {"role": "user", "content": "Transform this image <image> to match the style of oil."},
            {"role": "assistant", "content": "The output image is: <image_gen>"},
        ],
        "images": ["s.jpg", "t.jpg"],
    }
    (tmp_path / "rows.json").write_text(json.dumps([row, {**row, "images": ["s.jpg"]}]))
    for number, name in enumerate(row["images"]):
        (tmp_path / name).write_bytes(jpeg(number))
    good, bad = split(sharegpt.read(tmp_path / "rows.json"))
    (record,) = good
    assert [part.use for part in record.pictures()] == [SEEN, DRAWN] and record.meta["kind"] == "mixed"
    assert record.turns[0].text == "Transform this imageto match the style of oil."
    assert "2 placeholders" in bad[0].reason
