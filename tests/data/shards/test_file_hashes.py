from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vargpt_lightning.data.shards import file_hashes as module
from vargpt_lightning.data.shards.file_hashes import file_hashes, listing_hash
from vargpt_lightning.utils.errors import UserError


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_FROM", 4)
    read: list[str] = []
    hashed = module.file_sha256
    monkeypatch.setattr(module, "file_sha256", lambda file: read.append(file.name) or hashed(file))
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"large"), small.write_bytes(b"s")
    right = [hashlib.sha256(data).hexdigest() for data in (b"large", b"s")]
    for _ in range(2):
        assert file_hashes([large, small], tmp_path / "cache") == right
    assert sorted(read) == ["large", "small", "small"]
    large.write_bytes(b"other")
    assert file_hashes([large], tmp_path / "cache") == [hashlib.sha256(b"other").hexdigest()]


def test_without_a_place_to_keep_them_they_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_FROM", 0)
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "file").write_text("x")
    assert file_hashes([tmp_path / "file"], tmp_path / "cache") == [hashlib.sha256(b"x").hexdigest()]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lost: cannot be read"):
        file_hashes([tmp_path / "lost"], tmp_path)


def test_a_folder_is_known_by_its_listing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_text("12")
    (tmp_path / "2").write_text("3")
    first = listing_hash(tmp_path)
    assert (first["files"], first["bytes"]) == (2, 3)
    (tmp_path / "a" / "1").rename(tmp_path / "a" / "3")
    assert listing_hash(tmp_path) != first
