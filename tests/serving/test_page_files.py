from __future__ import annotations

import os

import pytest

from vargpt_lightning.serving.limits import RefusedRequestError
from vargpt_lightning.serving.page_files import PageFiles


def refused(files: PageFiles, owner: str, name: str) -> bool:
    with pytest.raises(RefusedRequestError) as error:
        files.read(owner, name)
    return error.value.status == 404


def test_a_picture_is_its_owners_alone() -> None:
    files = PageFiles()
    name = files.add("a", b"one")
    assert files.read("a", name) == b"one" and files.path("a", name).parent == files.folder
    assert refused(files, "b", name) and refused(files, "", name)
    assert files.add("a", b"one") != name
    assert files.folder.stat().st_mode & 0o077 == 0


def test_only_names_that_were_given_are_known(tmp_path) -> None:
    files = PageFiles()
    (tmp_path / "there.png").write_bytes(b"there")
    (files.folder / "there.png").write_bytes(b"there")
    name = files.add("a", b"one")
    paths = [str(tmp_path / "there.png"), str(files.folder / name), f"../{files.folder.name}/{name}", f"./{name}"]
    assert all(refused(files, "a", path) for path in [*paths, "there.png", "", ".", "..", "/", f"{name}/", "\x00"])


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "nothing"])
def test_what_is_no_file_any_more_is_not_opened(tmp_path, kind: str) -> None:
    files = PageFiles()
    path = files.path("a", name := files.add("a", b"one"))
    path.unlink()
    (tmp_path / "there.png").write_bytes(b"there")
    if kind == "link":
        path.symlink_to(tmp_path / "there.png")
    elif kind == "fifo":
        os.mkfifo(path)  # opening it would wait for ever
    elif kind == "folder":
        path.mkdir()
    assert refused(files, "a", name)


def test_the_oldest_are_forgotten() -> None:
    now = [0.0]
    files = PageFiles(seconds=10, most_bytes=6, clock=lambda: now[0])
    first, second = files.add("a", b"111"), files.add("a", b"222")
    third = files.add("b", b"333")
    assert refused(files, "a", first) and not (files.folder / first).exists()
    assert files.read("a", second) == b"222" and files.read("b", third) == b"333"
    now[0] = 11
    files.add("a", b"4")
    assert refused(files, "a", second) and len(list(files.folder.iterdir())) == 1
