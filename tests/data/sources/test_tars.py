from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.data.sources.conftest import write_tar
from vargpt_lightning.data.sources.tars import members, read_member, safe_name, tar_parts
from vargpt_lightning.utils.errors import UserError


def test_members_are_found_with_their_places(tmp_path: Path) -> None:
    long = "folder/" + "n" * 150 + "/ü.jpg"
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), (long, b"22" * 700), ("b/c.txt", b"")])
    found = list(members(path))
    assert [member.name for member in found] == ["a.jpg", long, "b/c.txt"]
    assert [read_member(path, member.offset, member.size) for member in found] == [b"1", b"22" * 700, b""]


def test_archives_inside_an_archive_are_walked(tmp_path: Path) -> None:
    inner = [
        write_tar(tmp_path / f"n{n}.tar", [(f"{n}/{k}.jpg", f"{n}{k}".encode()) for k in range(3)]) for n in range(2)
    ]
    path = write_tar(tmp_path / "train.tar", [(file.name, file.read_bytes()) for file in inner] + [("z.jpg", b"z")])
    content = {member.name: read_member(path, member.offset, member.size) for member in members(path)}
    assert content == {f"{n}/{k}.jpg": f"{n}{k}".encode() for n in range(2) for k in range(3)} | {"z.jpg": b"z"}
    parts = tar_parts("test", path, {}, lambda name: name, rows=2)
    again = [[m.name for m in members(part.path, part.start, part.stop)] for part in parts]
    assert again == [["0/0.jpg", "0/1.jpg"], ["0/2.jpg"], ["1/0.jpg", "1/1.jpg"], ["1/2.jpg"], ["z.jpg"]]
    assert [part.first for part in parts] == [0, 2, 3, 5, 6]


def test_pieces_begin_at_headers_of_long_names_too(tmp_path: Path) -> None:
    names = ["x" * 150 + f"/{number}.jpg" for number in range(7)]
    path = write_tar(tmp_path / "a.tar", [(name, b"d" * 600) for name in names])
    parts = tar_parts("test", path, {}, lambda name: name, rows=2)
    assert [m.name for part in parts for m in members(part.path, part.start, part.stop)] == names
    assert len(parts) == 4


@pytest.mark.parametrize("kept", [100, 512, 700, 1024, 1536, 2048, 2100])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_tar(tmp_path / "cut.tar", [("a", b"1" * 100), ("b", b"2" * 900)])
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(UserError, match=r"cut\.tar.*expected an uncompressed tar"):
        list(members(path))


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")])
    data = bytearray(path.read_bytes())
    data[1024:1200] = b"?" * 176
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar: cut off or damaged at byte 1024"):
        list(members(path))


def test_a_compressed_archive_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(write_tar(tmp_path / "b.tar", [("a", b"1")]).read_bytes()))
    with pytest.raises(UserError, match="compressed with gzip"):
        list(members(path))


@pytest.mark.parametrize("data", [b"", b"hello", b"PAR1" * 500])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar"):
        list(members(path))


def test_names_that_leave_the_folder_are_not_safe() -> None:
    assert all(map(safe_name, ["a.jpg", "a/b.jpg", "./a", "a..b/c"]))
    assert not any(map(safe_name, ["", "/a.jpg", "../a", "a/../../b", "a\0b", "\\a"]))
