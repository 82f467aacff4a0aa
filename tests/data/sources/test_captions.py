from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, split, write_file, write_tar
from vargpt_lightning.data.sources import captions
from vargpt_lightning.data.sources.tars import tar_parts
from vargpt_lightning.errors import UserError


def files(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    found = []
    for number in range(first, first + count):
        meta = json.dumps({"caption": f"from json {number}", "url": "x"}).encode()
        found += [(f"{number:05d}.jpg", jpeg(number)), (f"{number:05d}.json", meta)]
        if number % 2:
            found.append((f"{number:05d}.txt", f"a thing, {number} {{}}\n".encode()))
    return found


def test_samples_become_requests_by_their_captions(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", files(3))
    write_tar(tmp_path / "00001.tar", files(2, 3))
    good, bad = split(captions.read(tmp_path))
    assert not bad
    assert [record.meta["caption"] for record in good] == [
        "from json 0",
        "a thing, 1 {}",
        "from json 2",
        "a thing, 3 {}",
        "from json 4",
    ]
    assert all(record.meta["caption"] in record.turns[0].text for record in good)
    assert [record.pictures("drawn")[0].data for record in good] == [jpeg(number) for number in range(5)]
    assert len({record.id for record in good}) == 5


def test_pictures_may_be_seen_instead_or_either(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", files(20))
    seen, _ = split(captions.read(path, use="seen"))
    assert all(record.turns[1].text == record.meta["caption"] and record.pictures("seen") for record in seen)
    both, _ = split(captions.read(path, use="both"))
    assert {record.meta["kind"] for record in both} == {"understanding", "generation"}
    assert both == split(captions.read(path, use="both"))[0]
    with pytest.raises(UserError, match="'draw'; expected one of drawn, seen, both"):
        list(captions.read(path, use="draw"))


def test_pieces_never_cut_a_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", files(7))
    options = {"use": "drawn", "seed": 0, "name": "a"}
    parts = tar_parts("captions", path, options, captions._key, rows=2)
    assert len(parts) == 4
    assert [row for part in parts for row in captions.read_part(part)] == list(captions.read(path))


def test_bad_samples_are_refused_with_their_reasons(tmp_path: Path) -> None:
    cases = [
        ([("../up.jpg", jpeg()), ("../up.txt", b"up")], "refused"),
        ([("/root.jpg", jpeg()), ("/root.txt", b"up")], "refused"),
        ([("a.txt", b"no picture")], "no picture"),
        ([("b.jpg", jpeg())], "no caption"),
        ([("c.jpg", jpeg()), ("c.txt", b" \n")], "empty"),
        ([("d.jpg", jpeg()), ("d.txt", b"\xff\xfe")], "surrogate"),
        ([("e.jpg", jpeg()), ("e.json", b"{")], "JSON is broken"),
        ([("f.jpg", jpeg()), ("f.json", b'{"caption": null}')], "no caption in the JSON"),
        ([("g.jpg", b"JPEG"), ("g.txt", b"ok")], "no picture"),
        ([("h.jpg", jpeg()), ("h.txt", b"a\0b")], "NUL"),
    ]
    path = write_tar(tmp_path / "a.tar", [file for group, _ in cases for file in group] + files(1))
    good, bad = split(captions.read(path))
    assert len(good) == 1 and len(bad) == len(cases)
    for row, (_, words) in zip(bad, cases, strict=True):
        assert words in row.reason


def test_a_folder_of_pictures_with_texts_is_read(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        write_file(tmp_path / f"{name}.jpg", jpeg())
        write_file(tmp_path / f"{name}.txt", name.encode())
    good, bad = split(captions.read(tmp_path))
    assert not bad
    assert [record.meta["caption"] for record in good] == ["a", "b", "sub/c"]


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture with a caption"):
        list(captions.read(tmp_path))
    write_tar(tmp_path / "a.tar", files(2), end=False)
    with pytest.raises(UserError, match=r"a\.tar: cut off"):
        list(captions.read(tmp_path))
