"""The prompt file: ids and seeds that stay, classes in every form, references beside them."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.pictures import write_pictures
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.images.instruct_set import (
    ImageClass,
    Prompt,
    class_prompts,
    read_class_list,
    read_prompts,
    write_prompts,
)
from vargpt_lightning.evaluation.images.instruct_sources import (
    folder_prompts,
    middle_square,
    packed_prompts,
    parquet_prompts,
)
from vargpt_lightning.utils.errors import UserError


def test_fifty_a_class_of_a_thousand() -> None:
    prompts = list(class_prompts([ImageClass(f"n{number:08d}", f"thing {number}") for number in range(1000)]))
    assert len(prompts) == 50_000 == len({file_stem(prompt.id).lower() for prompt in prompts})
    assert set(Counter(prompt.class_name for prompt in prompts).values()) == {50}
    assert len({prompt.seed() for prompt in prompts}) > 49_990
    first = prompts[0]
    assert (first.id, first.caption) == ("n00000000-000", "a photo of a thing 0") and "a thing 0" in first.instruction
    assert len({prompt.instruction for prompt in prompts[:50]}) == 8, "wordings take turns"


def test_seeds_follow_from_the_id_and_the_base_alone() -> None:
    """Written down: they may never change."""
    assert [Prompt("n01440764-000", "x").seed(base) for base in (0, 1)] == [SEED_0, SEED_1]
    assert Prompt("n01440764-000", "other words", "y").seed() == SEED_0


SEED_0, SEED_1 = 770758980, 1692975599


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "n01440764 tench, Tinca tinca\n\nn01443537\tgoldfish\n"),
        ("b.json", json.dumps({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]})),
        ("c.json", json.dumps([["n01440764", "tench"], ["n01443537", "goldfish"]])),
    ],
)
def test_class_lists_of_every_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_class_list(tmp_path / name) == [ImageClass("n01440764", "tench"), ImageClass("n01443537", "goldfish")]


def test_class_names_without_keys_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("great_white shark, man-eater\nostrich\n")
    assert read_class_list(tmp_path / "a.txt") == [
        ImageClass("0000", "great white shark"),
        ImageClass("0001", "ostrich"),
    ]
    ten = {str(number): f"thing {number}" for number in range(11)}
    (tmp_path / "b.json").write_text(json.dumps(dict(sorted(ten.items()))))
    assert read_class_list(tmp_path / "b.json")[2] == ImageClass("0002", "thing 2"), "by number, not as text"
    assert "an ostrich" in next(class_prompts([ImageClass("0001", "ostrich")])).instruction
    (tmp_path / "c.json").write_text("[[1, 2, 3]]")
    with pytest.raises(UserError, match=r"class 0 is \[1, 2, 3\]"):
        read_class_list(tmp_path / "c.json")


def test_a_prompt_file_comes_back(tmp_path: Path) -> None:
    picture = write_pictures(tmp_path / "real", 1)[0].path
    prompts = [Prompt("a/1", "Draw\u2028it.", "it", "thing", picture), Prompt("b", "Draw.")]
    assert write_prompts(tmp_path / "p.jsonl", prompts) == 2
    assert json.loads((tmp_path / "p.jsonl").read_text().split("\n")[0])["reference"] == "real/0.png"
    assert read_prompts(tmp_path / "p.jsonl") == prompts
    assert [prompt.id for prompt in read_prompts(tmp_path / "p.jsonl", limit=1)] == ["a/1"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "1", "instruction": "x"}\n{"id": 1, "instruction": "y"}\n', "line 2: id '1' stands in line 1"),
        ('{"id": "1"}\n', "line 1: needs id, and instruction or caption; there is id"),
        ('{"instruction": "x"}\n', "needs id"),
        ("\n[1]\n", "line 2: list"),
        ("{\n", "line 1: not JSON"),
        ('{"id": "1", "instruction": ["x"]}\n', "instruction is list; expected text"),
        ("", "no prompts"),
    ],
)
def test_prompt_files_that_are_wrong(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(lines)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / "p.jsonl")


def test_other_prompt_mistakes(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="not found"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="1 ids come more than once, such as 'a'"):
        write_prompts(tmp_path / "q.jsonl", [Prompt("a", "x"), Prompt("a", "y")])
    with pytest.raises(UserError, match="text 'class'; expected one of instruction, caption"):
        Prompt("a", "x").text("class")


def imagenet(folder: Path, count: int = 6) -> Path:
    for place, name in enumerate(("n01440764", "n01443537")):
        for number in range(count):
            pixels = np.random.default_rng([place, number]).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number}.JPEG", "JPEG")
    return folder


def test_a_folder_of_classes_becomes_prompts_with_references(tmp_path: Path) -> None:
    root, classes = imagenet(tmp_path / "val"), [ImageClass("n01440764", "tench")]
    prompts = list(folder_prompts(root, tmp_path / "refs", classes, per_class=4, size=16))
    assert [prompt.id for prompt in prompts[:2]] == ["n01440764-000", "n01440764-001"] and len(prompts) == 8
    assert [prompts[0].class_name, prompts[7].class_name] == ["tench", "n01443537"]
    assert all(Image.open(prompt.reference).size == (16, 16) for prompt in prompts if prompt.reference)
    assert all(prompt.reference and prompt.reference.suffix == ".png" for prompt in prompts)
    assert len({prompt.reference.read_bytes() for prompt in prompts if prompt.reference}) == 8
    again = list(folder_prompts(root, tmp_path / "refs", classes, per_class=4, size=16))
    assert again == prompts
    with pytest.raises(UserError, match="6 pictures, 7 are asked for"):
        list(folder_prompts(root, tmp_path / "refs", per_class=7))
    assert len(list(folder_prompts(root, tmp_path / "refs", per_class=7, size=16, allow_fewer=True))) == 12
    with pytest.raises(UserError, match="no folders"):
        list(folder_prompts(root / "n01440764", tmp_path / "refs"))
    (root / "n01440764" / "n01440764_0.JPEG").write_bytes(b"no picture")
    with pytest.raises(UserError, match="no picture"):
        list(folder_prompts(root, tmp_path / "refs", per_class=6, size=16))


def test_references_are_the_middle_square() -> None:
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    assert middle_square(picture, 10).getcolors() == [(100, (0, 0, 255))]
    assert middle_square(picture, None) is picture


def test_parquet_rows_become_the_same_kind_of_prompts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def encoded(number: int) -> dict[str, Any]:
        data = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 9, 0, 0)).save(data, "PNG")
        return {"bytes": data.getvalue(), "path": None}

    labels = [1, 0, 1, 0, 1, 0, 1, 0, -1]
    table = pa.table({"image": [encoded(n) for n in range(9)], "label": labels})
    names = {"info": {"features": {"label": {"names": ["tench, Tinca", "goldfish"]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "a.parquet", 2)
    prompts = list(parquet_prompts(tmp_path, tmp_path / "refs", per_class=3, size=None))
    assert [prompt.id for prompt in prompts] == [f"000{label}-00{n}" for label in (0, 1) for n in range(3)]
    assert [prompt.class_name for prompt in prompts[::3]] == ["tench", "goldfish"]
    for prompt in prompts:
        assert prompt.reference is not None
        number = Image.open(prompt.reference).getpixel((0, 0))[0] // 9  # type: ignore[index]
        assert labels[number] == int(prompt.id[:4]), "the picture is one of its class"
    pq.write_table(table.drop_columns(["label"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column label; there are image"):
        list(parquet_prompts(tmp_path, tmp_path / "refs"))


def drawn_record(name: str, words: str, colour: str) -> Record:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    turns = (Turn("user", (TextPart(words),)), Turn("assistant", (PicturePart(DRAWN, colour, data.getvalue()),)))
    return Record(name, "tiny", turns, {"kind": "draw", "name": colour, "category": "colours"})


def test_packed_data_become_prompts(tmp_path: Path) -> None:
    asked = [drawn_record("1", "Draw red.", "red"), drawn_record("2", "Red, please.", "red")]
    asked.append(drawn_record("3", "Draw blue.", "blue"))
    asked.append(Record("4", "tiny", (Turn("user", (TextPart("Hello"),)), Turn("assistant", (TextPart("Hi"),)))))
    write_source(asked, tmp_path / "data" / "one", split="test")
    write_source([drawn_record("1", "Draw green.", "green")], tmp_path / "data" / "two", split="train")
    prompts = list(packed_prompts(tmp_path / "data", tmp_path / "refs"))
    assert [(p.id, p.instruction, p.caption, p.class_name) for p in prompts[:2]] == [
        ("1", "Draw red.", "red", "colours"),
        ("2", "Red, please.", "red", "colours"),
    ]
    assert [prompt.id for prompt in prompts] == ["1", "2", "3", "tiny/1"]
    assert prompts[0].reference == prompts[1].reference != prompts[2].reference
    assert Image.open(prompts[2].reference or "").getpixel((0, 0)) == (0, 0, 255)
    for limit, ids in {1: ["1"], 2: ["1", "3"], 3: ["1", "2", "tiny/1"], 5: ["1", "2", "3", "tiny/1"]}.items():
        spread = packed_prompts(tmp_path / "data", tmp_path / "refs", limit=limit)
        assert [prompt.id for prompt in spread] == ids, "from all parts of the data"
    assert [p.caption for p in packed_prompts(tmp_path / "data", tmp_path / "refs", split="train")] == ["green"]
    with pytest.raises(UserError, match=r"no index\.json"):
        list(packed_prompts(tmp_path / "refs", tmp_path / "x"))
    write_source(asked[3:], tmp_path / "talk", split="test")
    with pytest.raises(UserError, match="no record"):
        list(packed_prompts(tmp_path / "talk", tmp_path / "x"))
