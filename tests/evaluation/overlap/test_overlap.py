"""Evaluation records in training shards: by a file, by looks, by words; resumed, and bounded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.commands.test_evaluate_benchmarks import write_benchmarks
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.evaluation.overlap import search
from vargpt_lightning.evaluation.overlap.hashes import (
    bits_apart,
    looks_hash,
    squares,
    text_hash,
    text_keys,
    words,
)
from vargpt_lightning.evaluation.overlap.job import Evaluated, find_overlap
from vargpt_lightning.evaluation.overlap.known import Asked, Known, remember
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl


def scene(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A smooth picture of its own."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


def record(name: str, question: str, *pictures: bytes) -> Record:
    parts = [PicturePart(SEEN, f"{name}-{number}", data) for number, data in enumerate(pictures)]
    turns = (Turn("user", (*parts, TextPart(question))), Turn("assistant", (TextPart("Yes."),)))
    return Record(name, "made", turns)


def packed(folder: Path, *records: Record, shard_bytes: int = 1) -> Path:
    """Records in shards of one each."""
    write_source(records, folder, split="train", shard_bytes=shard_bytes)
    return folder


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    asked = [record(f"h{number}", f"What is number {number}?", encoded(scene(number))) for number in range(6)]
    return packed(tmp_path / "heldout", *asked)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Of the held-out records: 0 with its question, 1 another one; 2 smaller and mirrored, 3 with its question; 4's."""
    return packed(
        tmp_path / "train",
        record("t0", "what is  NUMBER 0\nAnswer with a single word.", encoded(scene(0))),
        record("t1", "Anything else?", encoded(scene(1)), encoded(scene(50))),
        record("t2", "Anything else?", encoded(ImageOps.mirror(scene(2)).resize((48, 40)), "JPEG")),
        record("t3", "What is number 3?", encoded(ImageEnhance.Brightness(scene(3)).enhance(0.9), "JPEG")),
        record("t4", "What is number 4?", encoded(scene(60))),
        record("t4-again", "What is number 4?", encoded(scene(61))),
        record("t9", "What is number 9?", encoded(scene(9))),
    )


def test_each_kind_of_overlap_is_counted_and_listed(held_out: Path, training: Path, tmp_path: Path) -> None:
    result = find_overlap([training], Evaluated(folders=[held_out]), tmp_path / "out")
    counts = {"records": 6, **dict.fromkeys(search.KINDS, 1)}
    assert result["sets"] == {"heldout": counts}
    assert result["training"] == {"folders": [str(training)], "records": 7, "pictures": 8, "broken": 0}
    listed = {row["id"]: row for row in read_jsonl(tmp_path / "out" / "overlap.jsonl")}
    assert {name: row["kind"] for name, row in listed.items()} == {
        "h0": "same picture and question",
        "h1": "same picture",
        "h2": "near picture",
        "h3": "near picture and question",
        "h4": "question",
    }
    assert listed["h0"]["found"]["same picture and question"]["records"] == [{"record": "train/t0", "bits": 0}]
    assert listed["h0"]["found"]["question"]["count"] == 1 and listed["h4"]["found"]["question"]["count"] == 2
    assert listed["h2"]["found"]["near picture"]["records"][0]["bits"] <= 7
    assert json.loads((tmp_path / "out" / "overlap.json").read_text())["sets"] == result["sets"]
    exact = find_overlap([training], Evaluated(folders=[held_out]), tmp_path / "exact", near=0)
    assert exact["sets"]["heldout"]["same picture"] == 1


def test_a_stopped_search_resumes_and_other_data_are_searched_anew(
    held_out: Path, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    original = search._Search.look_at

    def look_at(self: search._Search, one: Record) -> None:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(one.id)
        original(self, one)

    monkeypatch.setattr(search._Search, "look_at", look_at)
    evaluated = Evaluated(folders=[held_out])
    with pytest.raises(KeyboardInterrupt):
        find_overlap([training], evaluated, tmp_path / "out")
    looked[:] = ["", ""]
    monkeypatch.setattr(search._Search, "look_at", lambda self, one: (looked.append(one.id), original(self, one)))
    result = find_overlap([training], evaluated, tmp_path / "out")
    assert looked == ["", "", "t3", "t4", "t4-again", "t9"]
    assert result["sets"] == find_overlap([training], evaluated, tmp_path / "whole")["sets"]
    looked.clear()
    find_overlap([training], evaluated, tmp_path / "out")
    assert looked == []
    more = packed(tmp_path / "more", record("h6", "What is number 9?", encoded(scene(30))))
    assert find_overlap([training], Evaluated(folders=[more]), tmp_path / "out")["sets"]["more"]["question"] == 1
    assert len(looked) == 7


def test_what_is_kept_of_many_matches_is_bounded(held_out: Path, tmp_path: Path) -> None:
    data = encoded(scene(0))
    many = packed(
        tmp_path / "many", *(record(f"t{n}", "What is number 0?", data) for n in range(20)), shard_bytes=10**6
    )
    find_overlap([many], Evaluated(folders=[held_out]), tmp_path / "out")
    (row,) = read_jsonl(tmp_path / "out" / "overlap.jsonl")
    found = row["found"]["same picture and question"]
    assert found["count"] == 20 and [each["record"] for each in found["records"]] == ["many/t0", "many/t1", "many/t2"]


def test_benchmarks_are_found_by_the_command_in_several_processes(tmp_path: Path, capsys: Any) -> None:
    data = write_benchmarks(tmp_path / "benchmarks")
    from vargpt_lightning.evaluation import benchmarks

    picture = benchmarks.get("pope").pictures(next(iter(benchmarks.get("pope").load(data / "pope"))))[0]
    assert picture is not None
    folder = packed(
        tmp_path / "train",
        record("a", "Is there a dog?\nAnswer the question using a single word or phrase.", picture.bytes()),
        record("b", "Is there a whale?", encoded(scene(1))),
    )
    words = ["data", "overlap", str(folder), "--benchmarks", "pope", "--data", str(data), "--processes", "2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "compared with 2 training records, 2 pictures" in said
    assert "pope: 6 records, of them 3 by same picture and question, 3 by same picture" in said
    assert main(["data", "overlap", str(folder)]) == 2
    assert "nothing to look for" in capsys.readouterr().err
    assert main(["data", "overlap", str(folder), "--heldout", str(folder)]) == 2
    assert "is training data and held out" in capsys.readouterr().err


def test_pictures_are_known_by_what_they_look_like() -> None:
    own = [squares(encoded(scene(seed)), "") for seed in range(40)]
    hashes = np.stack([looks_hash(each) for each in own])
    apart = bits_apart(hashes[:, None], hashes[None])
    assert (np.diag(apart) == 0).all() and apart[~np.eye(40, dtype=bool)].min() > 7
    copy = squares(encoded(scene(0).resize((30, 30)), "JPEG"), "")
    assert int(bits_apart(looks_hash(copy), hashes[0])) <= 7
    blank = looks_hash(squares(encoded(Image.new("RGB", (50, 40), "white"), "JPEG"), ""))
    assert blank.tolist() == [0, 0]


def test_the_same_outlines_in_other_colours_are_another_picture(tmp_path: Path) -> None:
    """A red disc and a green one on white have one hash."""
    colours = {name: Image.new("RGB", (64, 64), "white") for name in ("red", "lime")}
    for name, image in colours.items():
        image.paste(name, (16, 16, 48, 48))
    known, _ = remember([Asked("", "red", "", (encoded(colours["red"]),))], tmp_path)
    found = {name: list(known.look_alikes(squares(encoded(image, "WEBP"), ""))) for name, image in colours.items()}
    assert found["red"] and not found["lime"]


def test_broken_pictures_are_counted_and_compared_by_their_files(tmp_path: Path) -> None:
    known, broken = remember([Asked("s", "a", "Q?", (b"none", encoded(scene(0))))], tmp_path)
    assert broken == 1 and len(known.files_U) == 1
    empty, _ = remember([Asked("s", "a", "Only words?", ())], tmp_path / "words")
    assert list(empty.look_alikes(squares(encoded(scene(0)), ""))) == [] and empty.same_file(b"x") is None
    assert Known.load(tmp_path / "words").questions == {text_hash("only words")}
    folder = packed(tmp_path / "train", record("t", "Only words?", b"none"))
    held = packed(tmp_path / "held", record("h", "Only  words", encoded(scene(0))))
    result = find_overlap([folder], Evaluated(folders=[held]), tmp_path / "out")
    assert result["training"]["broken"] == 1 and result["sets"]["held"]["question"] == 1
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="expected a folder of packed records"):
        find_overlap([folder], Evaluated(folders=[tmp_path / "nothing"]), tmp_path / "out")


def test_words_are_compared_without_marks_and_line_by_line() -> None:
    assert words("  What's “this”?\n") == "what s this"
    assert text_keys("Is it red?\nAnswer yes or no.") == {
        text_hash("is it red"), text_hash("answer yes or no"), text_hash("is it red answer yes or no")
    }  # fmt: skip
