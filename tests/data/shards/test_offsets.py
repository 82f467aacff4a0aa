"""Where records lie, as flat arrays: the same from JSON in one piece, in many, and from what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vargpt_lightning.data.shards import offsets as subject
from vargpt_lightning.data.shards.offsets import Offsets
from vargpt_lightning.utils.errors import UserError

SAMPLES = [[number // 3, [number * 1024 + 512, 7], *[[9, 9]] * (number % 3)] for number in range(40)]


def written(folder: Path, text: str) -> Path:
    (folder / "offsets.json").write_text(text)
    return folder


def same(offsets: Offsets) -> bool:
    return [[shard, *places] for shard, places in map(offsets.at, range(len(offsets)))] == SAMPLES


@pytest.mark.parametrize("piece", [40, 100, 10**6])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_json_is_read_in_pieces(
    piece: int, separators: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_PIECE", piece)
    assert same(Offsets.read(written(tmp_path, json.dumps(SAMPLES, separators=separators))))


def test_many_are_kept_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subject, "KEPT_FROM", 10)
    folder = written(tmp_path, json.dumps(SAMPLES))
    Offsets.read(folder)
    monkeypatch.setattr(subject, "_samples", None)  # it would be needed to read them again
    kept = Offsets.read(folder)
    assert same(kept) and isinstance(kept.places, np.memmap)


def test_other_offsets_are_not_taken_for_those_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subject, "KEPT_FROM", 10)
    Offsets.read(written(tmp_path, json.dumps([[9, [1, 2]]] * 40)))
    assert same(Offsets.read(written(tmp_path, json.dumps(SAMPLES))))


def test_kept_offsets_that_are_broken_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subject, "KEPT_FROM", 10)
    folder = written(tmp_path, json.dumps(SAMPLES))
    Offsets.read(folder)
    (file,) = (tmp_path / "cache" / "offsets").iterdir()
    for size in (0, 100, file.stat().st_size - 8):
        file.write_bytes(file.read_bytes()[:size])
        assert same(Offsets.read(folder))


def test_without_a_place_to_keep_them_they_are_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subject, "KEPT_FROM", 10)
    assert same(Offsets.read(written(tmp_path, json.dumps(SAMPLES))))


def test_no_records_at_all(tmp_path: Path) -> None:
    assert len(Offsets.read(written(tmp_path, "[]"))) == 0


@pytest.mark.parametrize("text", ["[[0,[1,2]],", "{}", "[[0,[1,2]],[0]]", "[[0,[1]]]", '[["a",[1,2]]]', "[[]]", ""])
def test_what_are_no_offsets(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"offsets.json: \d+ bytes that are no offsets"):
        Offsets.read(written(tmp_path, text))
