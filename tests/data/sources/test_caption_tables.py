"""Captions in tables: JSON lines, CSV, parquet, imagefolders, and the folders of Hugging Face's `datasets`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.conftest import jpeg, split, write_file
from tests.data.sources.hub_files import save_dict, save_to_disk, snapshot, table
from vargpt_lightning.data.sources import captions, onevision
from vargpt_lightning.data.sources.corpus_folders import find_layout, split_of
from vargpt_lightning.data.sources.csv_rows import csv_parts, csv_rows
from vargpt_lightning.utils.errors import UserError

TEXTS = ["a red disc", 'one, "two"', "drei\nvier", "fünf"]


def cells(count: int = len(TEXTS)) -> list[dict[str, Any]]:
    return [{"bytes": jpeg(number * 40), "path": None} for number in range(count)]


def hub_table(count: int = len(TEXTS), first: int = 0) -> pa.Table:
    some = slice(first, first + count)
    return table({"image": ("Image", cells()[some]), "text": ("Value", TEXTS[some])})


def pictures(folder: Path) -> Path:
    for number in range(len(TEXTS)):
        write_file(folder / f"sub/{number}.jpg", jpeg(number * 40))
    return folder


def named(**more: str) -> list[dict[str, str]]:
    return [{"file_name": f"sub/{number}.jpg", "text": text, **more} for number, text in enumerate(TEXTS)]


def csv_text(rows: list[dict[str, str]], mark: str = ",") -> str:
    quoted = [['"' + value.replace('"', '""') + '"' for value in row.values()] for row in rows]
    return "\n".join(mark.join(line) for line in [list(rows[0]), *quoted]) + "\n"


def imagefolder(folder: Path, kind: str) -> Path:
    pictures(folder)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(named()), folder / "metadata.parquet")
    elif kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named()))
    else:
        (folder / f"metadata.{kind}").write_text(csv_text(named(), "\t" if kind == "tsv" else ","))
    return folder


def arrow_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, hub_table().schema) as out:
        out.write_table(hub_table())
    return path


def parquet_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(hub_table(), path)
    return path


WAYS: dict[str, Callable[[Path], Path]] = {
    "metadata.csv": lambda folder: imagefolder(folder, "csv"),
    "metadata.tsv": lambda folder: imagefolder(folder, "tsv"),
    "metadata.jsonl": lambda folder: imagefolder(folder, "jsonl"),
    "metadata.parquet": lambda folder: imagefolder(folder, "parquet"),
    "JSON lines": lambda folder: imagefolder(folder, "jsonl") / "metadata.jsonl",
    "JSON": lambda folder: write_file(pictures(folder) / "all.json", json.dumps(named()).encode()),
    "CSV of Excel": lambda folder: write_file(
        pictures(folder) / "x.csv", b"\xef\xbb\xbf" + csv_text(named(), ";").encode()
    ),
    "another name": lambda folder: (
        imagefolder(folder, "jsonl").joinpath("metadata.jsonl").rename(folder / "list.jsonl").parent
    ),
    "parquet": lambda folder: parquet_file(folder / "a.parquet"),
    "Arrow file": lambda folder: arrow_file(folder / "a.arrow"),
    "saved": lambda folder: save_to_disk(folder, hub_table()),
    "saved in shards": lambda folder: save_to_disk(folder, hub_table(), shards=3, batch=1),
    "saved dict": lambda folder: save_dict(folder, {"train": hub_table(), "test": hub_table(1)}),
    "snapshot": lambda folder: snapshot(folder, {"train": hub_table(), "validation": hub_table(1)}),
}


@pytest.mark.parametrize("way", WAYS)
def test_captions_are_read_wherever_they_stand(tmp_path: Path, way: str) -> None:
    path = WAYS[way](tmp_path / "corpus")
    good, bad = split(captions.read(path))
    assert not bad
    assert [record.meta["caption"] for record in good] == TEXTS
    assert [record.pictures("drawn")[0].data for record in good] == [cell["bytes"] for cell in cells()]
    assert len({record.id for record in good}) == len({record.pictures()[0].key for record in good}) == len(TEXTS)


def test_pieces_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a.csv", csv_text(named()).encode())
    parts = csv_parts("captions", path, {}, rows=1)
    assert len(parts) == len(TEXTS)
    found = [row for part in parts for row in csv_rows(part)]
    assert found == list(enumerate(named()))
    saved = save_to_disk(tmp_path / "saved", hub_table(), batch=1)
    monkeypatch.setattr("vargpt_lightning.data.sources.arrow_rows.ROWS_PER_PART", 2)
    assert [part.first for part in captions.parts(saved)] == [0]
    from vargpt_lightning.data.sources.arrow_rows import arrow_parts, arrow_rows

    pieces = arrow_parts("captions", saved / "data-00000-of-00001.arrow", {}, rows=2)
    assert [part.first for part in pieces] == [0, 2]
    assert [row["text"] for part in pieces for _, row in arrow_rows(part, ["text"])] == TEXTS  # type: ignore[index]


def test_a_split_is_chosen_and_the_others_are_told(tmp_path: Path) -> None:
    for path in (
        save_dict(tmp_path / "dict", {"train": hub_table(2), "test": hub_table(1, 2), "mine": hub_table(1, 3)}),
        snapshot(tmp_path / "snap", {"train": hub_table(2), "test": hub_table(1, 2), "dev": hub_table(1, 3)}),
    ):
        found = {
            name: [r.meta["caption"] for r in split(captions.read(path, split=name))[0]] for name in ("test", "all")
        }
        assert found["test"] == TEXTS[2:3] and sorted(found["all"]) == sorted(TEXTS)
        assert [r.meta["caption"] for r in split(captions.read(path))[0]] == TEXTS[:2]
        assert captions.left_out(path, captions.parts(path))["split test"] == 1
        with pytest.raises(UserError, match=r"'nowhere'; there is .*test.*split=all"):
            captions.parts(path, split="nowhere")
    only = save_dict(tmp_path / "only", {"test": hub_table(1), "dev": hub_table(1, 1)})
    with pytest.raises(UserError, match="no split 'train'; there is dev, test"):
        captions.parts(only)


def test_a_word_inside_a_name_is_no_split_unless_training_has_such_a_name_too(tmp_path: Path) -> None:
    for number, folder in enumerate(("zoo", "eye test", "dev kits", "evaluation/of-1990")):
        write_file(tmp_path / "any" / folder / "1.jpg", jpeg(number * 40))
        (tmp_path / "any" / folder / "metadata.csv").write_text("file_name,text\n1.jpg,it\n")
    layout = find_layout(tmp_path / "any")
    assert len(layout.files) == 3 and layout.other_splits == {"test": 1}, "a folder that is called evaluation"
    for name in ("part-1", "flight_test"):
        write_file(tmp_path / "tables" / f"{name}.parquet", b"")
    assert len(find_layout(tmp_path / "tables").files) == 2
    for name in ("data_train-00000-of-00002", "data_train-00001-of-00002", "data_test-00000-of-00001"):
        write_file(tmp_path / "both" / f"{name}.parquet", b"")
    assert find_layout(tmp_path / "both").other_splits == {"test": 1}
    splits = ["train-00000-of-00002-0123456789abcdef", "test2017", "validation.0", "val", "testimony", "latest"]
    assert [split_of(f"data/{name}.parquet") for name in splits] == [
        "train",
        "test",
        "validation",
        "validation",
        "",
        "",
    ]


@pytest.mark.parametrize("take", ["all", "one"])
def test_several_captions_of_a_picture_are_records_of_their_own(tmp_path: Path, take: str) -> None:
    lists = [["a one", "a two", "a one"], [" ", "b one"], []]
    whole = table({"image": ("Image", cells(3)), "captions": ("List", lists)})
    good, bad = split(captions.read(save_to_disk(tmp_path / "s", whole), take=take))
    said = [record.meta["caption"] for record in good]
    assert (said == ["a one", "a two", "b one"]) if take == "all" else (len(said) == 2 and said[1] == "b one")
    assert len({record.id for record in good}) == len(good) and "no caption" in bad[0].reason
    with pytest.raises(UserError, match="'two'; expected one of all, one"):
        captions.parts(tmp_path / "s", take="two")


def test_lists_of_captions_beside_pictures_count_too(tmp_path: Path) -> None:
    write_file(tmp_path / "a.jpg", jpeg())
    write_file(tmp_path / "a.json", json.dumps({"captions": [{"raw": "one"}, {"raw": "two"}]}).encode())
    good, _ = split(captions.read(tmp_path))
    assert [record.meta["caption"] for record in good] == ["one", "two"]


def test_names_of_classes_are_captions_where_there_are_no_others(tmp_path: Path) -> None:
    whole = table({"img": ("Image", cells(3)), "label": ("ClassLabel", [1, 0, -1])}, ["old_owl", "red disc"])
    good, bad = split(captions.read(save_to_disk(tmp_path / "saved", whole)))
    assert [record.meta["caption"] for record in good] == ["red disc", "old owl"] and "class label is -1" in bad[
        0
    ].reason
    for name in ("old_owl/1.JPG", "old_owl/2.png", "red disc/1.jpg"):
        write_file(tmp_path / f"classes/train/{name}", jpeg())
    write_file(tmp_path / "classes/test/red disc/9.jpg", jpeg())
    good, bad = split(captions.read(tmp_path / "classes"))
    assert [record.meta["caption"] for record in good] == ["old owl", "old owl", "red disc"] and not bad
    assert captions.left_out(tmp_path / "classes", captions.parts(tmp_path / "classes")) == {"split test": 1}


@pytest.mark.parametrize("column", ["text", "Caption", "TEXT", "prompt", "description"])
def test_columns_are_found_by_their_usual_names(tmp_path: Path, column: str) -> None:
    rows = [{"url": "x", "image_path": "1.jpg", column: "a thing"}]
    write_file(tmp_path / "1.jpg", jpeg())
    path = write_file(tmp_path / "a.jsonl", json.dumps(rows[0]).encode())
    (record,), _ = split(captions.read(path))
    assert record.meta["caption"] == "a thing"


def test_columns_may_be_named(tmp_path: Path) -> None:
    row = {"a": "1.jpg", "image": "2.jpg", "text": "no", "words": "a thing"}
    for number in (1, 2):
        write_file(tmp_path / f"{number}.jpg", jpeg(number))
    path = write_file(tmp_path / "a.jsonl", json.dumps(row).encode())
    (record,), _ = split(captions.read(path, caption="words", picture="a"))
    assert record.meta["caption"] == "a thing" and record.pictures()[0].data == jpeg(1)
    with pytest.raises(UserError, match="no column 'word', which caption= names; there are a, image, text, words"):
        captions.parts(path, caption="word")
    path.write_text(json.dumps({"a": "1.jpg", "words": "a thing"}))
    with pytest.raises(UserError, match=r"no column of captions among a, words; .*caption=COLUMN"):
        captions.parts(path)
    with pytest.raises(UserError, match=r"no column of pictures among a, words; .*picture=COLUMN"):
        captions.parts(path, caption="words")


def test_bad_rows_are_refused_with_their_reasons(tmp_path: Path) -> None:
    write_file(tmp_path / "in/1.jpg", jpeg())
    write_file(tmp_path / "in/broken.jpg", b"JPEG")
    write_file(tmp_path / "secret.jpg", jpeg())
    (tmp_path / "in/link.jpg").symlink_to("../secret.jpg")
    rows = [
        ({"image": "../secret.jpg", "text": "x"}, "leads out"),
        ({"image": "link.jpg", "text": "x"}, "link that leads out"),
        ({"image": "2.jpg", "text": "x"}, "not found"),
        ({"image": "broken.jpg", "text": "x"}, "no picture"),
        ({"image": "https://a.b/c.jpg", "text": "x"}, "an address"),
        ({"image": None, "text": "x"}, "no picture"),
        ({"image": ["1.jpg", "2.jpg"], "text": "x"}, "2 pictures in a row"),
        ({"image": "1.jpg", "text": " "}, "no caption"),
        ({"image": "1.jpg", "text": 3}, "no caption"),
        ({"image": "1.jpg"}, "no caption"),
        ({"image": "1.jpg", "text": "a\0b"}, "NUL"),
        ({"image": "1.jpg", "text": "\ud800"}, "surrogate"),
        (["a"], "expected an object"),
    ]
    path = tmp_path / "in/a.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [{"image": ["1.jpg"], "text": "ok"}, *(r for r, _ in rows)])
    )
    good, bad = split(captions.read(path))
    assert [record.meta["caption"] for record in good] == ["ok"]
    assert [words for (_, words), row in zip(rows, bad, strict=True) if words not in row.reason] == []


def test_a_csv_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "1.jpg", jpeg())
    path = write_file(tmp_path / "a.csv", b"file_name,text\n1.jpg,ok\n1.jpg,red, not blue\n1.jpg\n")
    good, bad = split(captions.read(path))
    assert len(good) == 1 and [row.reason[:20] for row in bad] == ["3 cells for 2 column", "1 cell for 2 columns"]
    for data, words in ((b'file_name,text\n1.jpg,"cut off\n', "expected a CSV file"), (b"a,a\n1,2\n", "each once")):
        with pytest.raises(UserError, match=words):
            captions.parts(write_file(path, data))


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "s", hub_table())
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-700])
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow.*Arrow"):
        list(captions.read(folder))
    file.unlink()
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow: not found; .*state\.json"):
        list(captions.read(folder))
    write_file(tmp_path / "x.arrow", b"no arrow")
    with pytest.raises(UserError, match=r"x\.arrow.*Arrow"):
        list(captions.read(tmp_path / "x.arrow"))


@pytest.mark.parametrize("name", ["../out", "/etc", "a/../../out"])
def test_a_saved_folder_cannot_name_files_outside(tmp_path: Path, name: str) -> None:
    save_to_disk(tmp_path / "out", hub_table())
    folder = save_to_disk(tmp_path / "s", hub_table())
    told = {"_data_files": [{"filename": f"{name}/data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="not found"):
        captions.parts(folder)


def test_text_that_is_no_unicode_is_refused_by_the_row(tmp_path: Path) -> None:
    texts = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())
    whole = pa.table({"image": cells(2), "text": texts})
    save_to_disk(tmp_path / "s", whole)
    pq.write_table(whole, tmp_path / "a.parquet")
    for path in (tmp_path / "s", tmp_path / "a.parquet"):
        good, bad = split(captions.read(path))
        assert len(good) == 1 and "not Unicode" in bad[0].reason


def test_pictures_of_a_table_may_lie_elsewhere(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures")
    rows = [{**row, "file_name": str(tmp_path / "pictures" / row["file_name"])} for row in named()]
    path = write_file(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert len(split(captions.read(path, pictures=tmp_path / "pictures"))[0]) == len(TEXTS)
    (tmp_path / "b").mkdir()
    good, bad = split(captions.read(path.rename(tmp_path / "b/a.jsonl")))
    assert not good and "pictures=FOLDER" in bad[0].reason


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    imagefolder(tmp_path / "a", "csv")
    write_file(tmp_path / "a/other.PNG", jpeg())
    write_file(tmp_path / "a/LICENSE", b"")
    assert captions.left_out(tmp_path / "a", captions.parts(tmp_path / "a")) == {".png": 1, "no ending": 1}
    for name in ("1.jpg", "1.png", "1.txt", "2.txt", "3.heic", "3.txt", "notes.md", ".DS_Store", "__MACOSX/._1.jpg"):
        write_file(tmp_path / f"b/{name}", jpeg())
    assert captions.left_out(tmp_path / "b", captions.parts(tmp_path / "b")) == {".md": 1, ".png": 1, ".txt": 1}


CONV = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "x"}]
NOTHING = {"bytes": None, "path": None}


@pytest.mark.parametrize(
    "row",
    [
        {"images": [], "image": {"bytes": jpeg(), "path": None}, "conversations": CONV},
        {"images": [NOTHING], "image": {"bytes": jpeg(), "path": None}, "conversations": CONV},
        {"images": [{"bytes": jpeg(), "path": None}, NOTHING], "image": None, "conversations": CONV},
        {"image": jpeg(), "conversations": json.dumps(CONV)},
        {"image": jpeg(), "conversations": {"from": ["human", "gpt"], "value": ["<image>\nWhat?", "x"]}},
        {
            "image": jpeg(),
            "messages": [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "x"}],
        },
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_conversations_as_tables_keep_them(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    whole = pa.Table.from_pylist([row])
    if kind == "arrow":
        save_to_disk(tmp_path / "c", whole)
    else:
        (tmp_path / "c").mkdir()
        pq.write_table(whole, tmp_path / "c/train-00000-of-00001.parquet")
    (record,), bad = split(onevision.read(tmp_path / "c"))
    assert not bad and record.pictures("seen")[0].data == jpeg() and record.turns[1].text == "x"


def test_a_struct_of_nulls_is_no_picture(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "x"}]
    rows = [{"image": {"bytes": jpeg(), "path": None}, "conversations": CONV}]
    rows += [
        {"image": NOTHING, "conversations": said},
        {"image": {"bytes": None, "path": "a.jpg"}, "conversations": CONV},
    ]
    (tmp_path / "c").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c/train.parquet")
    good, bad = split(onevision.read(tmp_path / "c"))
    assert [len(record.pictures()) for record in good] == [1, 0] and "no bytes" in bad[0].reason
