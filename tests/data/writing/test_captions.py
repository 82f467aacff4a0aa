"""Captions from JSON lines and parquet, and the rows that will not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vargpt_lightning.data.writing.captions import BadCaption, Caption, CaptionColumns, read_captions
from vargpt_lightning.utils.errors import UserError

GOOD = {"id": 7, "picture": "a/b.jpg", "caption": " a  tench\non grass "}
CAPTION = Caption("7", "a/b.jpg", "a tench on grass")


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_json_lines(tmp_path: Path) -> None:
    assert list(read_captions(jsonl(tmp_path / "c.jsonl", "\ufeff" + json.dumps(GOOD), ""))) == [CAPTION]


@pytest.mark.parametrize(
    ("row", "bad"),
    [
        ("{torn", BadCaption("line 2", "caption not JSON")),
        ("[1]", BadCaption("line 2", "caption not JSON")),
        ({**GOOD, "id": None}, BadCaption("line 2", "caption without id")),
        ({**GOOD, "id": 8, "picture": ""}, BadCaption("8", "caption without picture")),
        ({**GOOD, "id": 8, "caption": " "}, BadCaption("8", "caption empty")),
        ({**GOOD, "id": 8, "caption": 5}, BadCaption("8", "caption empty")),
        ({**GOOD, "id": 8, "caption": "a\0b"}, BadCaption("8", "caption not text")),
        ({**GOOD, "id": 8, "caption": "a \ud800 b"}, BadCaption("8", "caption not text")),
        (GOOD, BadCaption("7", "id twice")),
    ],
)
def test_bad_rows_are_told(tmp_path: Path, row: Any, bad: BadCaption) -> None:
    file = jsonl(tmp_path / "c.jsonl", GOOD, row, {**GOOD, "id": 9})
    assert list(read_captions(file)) == [CAPTION, bad, Caption("9", CAPTION.picture, CAPTION.text)]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "c.jsonl", GOOD)
    file.write_bytes(file.read_bytes() + b'{"id": "\xff"}\n')
    assert list(read_captions(file))[1] == BadCaption("line 2", "caption not JSON")


def test_parquet_with_other_columns_in_a_folder(tmp_path: Path) -> None:
    """Pictures may be structs of path and bytes, of which the bytes are left alone."""
    columns = CaptionColumns("key", "image", "text")
    for name in ("b", "a"):
        image = [{"path": f"{name}.jpg", "bytes": b"x"}]
        pq.write_table(pa.table({"key": [name], "image": image, "text": ["a tench"]}), tmp_path / f"{name}.parquet")
    assert list(read_captions(tmp_path, columns)) == [Caption(n, f"{n}.jpg", "a tench") for n in ("a", "b")]
    with pytest.raises(UserError, match=r"a.parquet: no column id and picture and caption; there are image, key, text"):
        list(read_captions(tmp_path))


def test_files_that_will_not_do(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "picture": [b"x"], "caption": ["y"]}), tmp_path / "bytes.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "c.csv").write_text("id")
    (tmp_path / "empty").mkdir()
    jsonl(tmp_path / "other.jsonl", {"id": 1, "text": "x"})
    for name, text in {
        "bytes.parquet": "'picture' holds pictures; expected their paths",
        "broken.parquet": "cannot be read as parquet",
        "c.csv": "ends in '.csv'; expected .jsonl or .parquet",
        "empty": "no .parquet files",
        "missing.jsonl": "not found",
        "other.jsonl": "line 1: no column picture and caption; there are id, text",
    }.items():
        with pytest.raises(UserError, match=text):
            list(read_captions(tmp_path / name))


def test_a_folder_of_pictures_with_captions(tmp_path: Path) -> None:
    for name, text in (("a.png", "A dog."), ("in/b.JPG", ""), ("c.jpg", None)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked at")
        if text is not None:
            (tmp_path / name).with_suffix(".txt").write_text(text)
    assert list(read_captions(tmp_path)) == [
        Caption("a", "a.png", "A dog."),
        BadCaption("c", "caption empty"),
        BadCaption("in/b", "caption empty"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_has_its_own_names(tmp_path: Path, kind: str) -> None:
    rows = [{"file_name": "1.jpg", "text": "a red, round disc"}, {"file_name": "sub/2.jpg", "text": "a box"}]
    (tmp_path / "train").mkdir()
    file = tmp_path / f"train/metadata.{kind}"
    if kind == "csv":
        file.write_text('file_name,text\n1.jpg,"a red, round disc"\nsub/2.jpg,a box\n')
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    found = list(read_captions(tmp_path))
    assert [(each.picture, each.text) for each in found if isinstance(each, Caption)] == [
        ("train/1.jpg", "a red, round disc"),
        ("train/sub/2.jpg", "a box"),
    ]


def test_a_folder_of_pictures_in_any_case_is_read(tmp_path: Path) -> None:
    for name, text in (("a.Jpg", "a.Txt"), ("b.TIFF", "b.txt")):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / text).write_text("a thing")
    assert [each.picture for each in read_captions(tmp_path) if isinstance(each, Caption)] == ["a.Jpg", "b.TIFF"]
