from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, split, write_file, write_tar
from vargpt_lightning.data.packing.reasons import reason_kind
from vargpt_lightning.data.sources import captions, endings
from vargpt_lightning.data.sources.caption_files import folder_captions, tar_key
from vargpt_lightning.data.sources.tars import tar_parts
from vargpt_lightning.utils.errors import UserError


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
    parts = tar_parts("captions", path, options, tar_key, rows=2)
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


@pytest.mark.parametrize(
    "picture", ["a.Jpg", "a.JPEG", "a.Png", "a.tiff", "a.TIF", "a.avif", "a.jfif", "a.jpe", "a.bmp"]
)
@pytest.mark.parametrize("text", ["a.Txt", "a.CAPTION"])
def test_endings_count_in_any_case_and_kind(tmp_path: Path, picture: str, text: str) -> None:
    write_file(tmp_path / "folder" / picture, jpeg())
    write_file(tmp_path / "folder" / text, b"a thing")
    write_tar(tmp_path / "a.tar", [(picture, jpeg()), (text, b"a thing")])
    for path in (tmp_path / "folder", tmp_path / "a.tar"):
        good, bad = split(captions.read(path))
        assert [record.meta["caption"] for record in good] == ["a thing"] and not bad
    assert list(folder_captions(tmp_path / "folder")) == [("a", picture, "a thing")]


@pytest.mark.parametrize("ending", ["heic", "HEIF", "psd", "svg", "cr2"])
def test_pictures_of_kinds_that_are_not_read_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    write_file(tmp_path / f"folder/a.{ending}", jpeg())
    write_file(tmp_path / "folder/a.txt", b"a thing")
    write_tar(tmp_path / "a.tar", [(f"a.{ending}", jpeg()), ("a.txt", b"a thing")])
    for path in (tmp_path / "folder", tmp_path / "a.tar"):
        good, (bad,) = split(captions.read(path))
        assert not good and reason_kind(bad.reason) == f"a picture of a kind that is not read (.{ending.lower()})"


def test_what_pillow_cannot_read_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "readable_formats", lambda: ("JPEG", "PNG"))
    for cached in (endings.picture_endings, endings.unread_endings):
        cached.cache_clear()
    try:
        for name in ("a.avif", "a.txt", "b.jpg", "b.txt"):
            write_file(tmp_path / name, jpeg())
        _, bad = split(captions.read(tmp_path))
        assert any(".avif" in row.reason for row in bad)
    finally:
        for cached in (endings.picture_endings, endings.unread_endings):
            cached.cache_clear()


def test_names_with_dots_are_samples_of_their_own_where_each_has_a_text(tmp_path: Path) -> None:
    members = [
        (f"a.{name}.{end}", jpeg() if end == "jpg" else name.encode()) for name in "bc" for end in ("jpg", "txt")
    ]
    good, bad = split(captions.read(write_tar(tmp_path / "a.tar", members)))
    assert [record.meta["caption"] for record in good] == ["b", "c"] and not bad
    pair = [("a.left.jpg", jpeg()), ("a.right.jpg", jpeg()), ("a.txt", b"both")]
    good, bad = split(captions.read(write_tar(tmp_path / "b.tar", pair)))
    assert not good and len(bad) == 1 and ".left.jpg, .right.jpg" in bad[0].reason
    mask = [("a.jpg", jpeg(1)), ("a.mask.png", jpeg(2)), ("a.txt", b"a thing")]
    good, bad = split(captions.read(write_tar(tmp_path / "c.tar", mask)))
    assert [record.pictures()[0].data for record in good] == [jpeg(1)] and not bad
