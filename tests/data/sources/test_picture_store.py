from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, write_file, write_parquet, write_tar
from vargpt_lightning.data.sources import picture_index, picture_store
from vargpt_lightning.data.sources.base import RowError
from vargpt_lightning.data.sources.picture_index import imagenet_id
from vargpt_lightning.data.sources.picture_store import PictureStore, open_pictures
from vargpt_lightning.errors import UserError

IDS = ["n01440764_10026", "n01440764_7", "n01443537_3"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("n01440764_10026_n01440764.JPEG", "n01440764_10026"),
        ("train/n01440764/n01440764_10026.JPEG", "n01440764_10026"),
        ("ILSVRC2012_val_00000293_n01440764.JPEG", "ILSVRC2012_val_00000293"),
        ("n01440764/a.jpg", None),
    ],
)
def test_the_id_is_found_in_all_ways_of_writing_it(name: str, found: str | None) -> None:
    assert imagenet_id(name) == found


def test_files_in_folders_are_found_by_path(tmp_path: Path) -> None:
    write_file(tmp_path / "coco/train2017/1.jpg", b"one")
    store = PictureStore(tmp_path)
    assert store.read("coco/train2017/1.jpg") == store.read("./coco//train2017/1.jpg") == b"one"
    assert store.read(str(tmp_path.absolute() / "coco/train2017/1.jpg")) == b"one"
    with pytest.raises(RowError, match=r"'coco/train2017/2.jpg': not found"):
        store.read("coco/train2017/2.jpg")
    with pytest.raises(RowError, match="not found"):
        store.read("coco/train2017")
    with pytest.raises(RowError):
        store.read("x" * 5000)


def test_a_picture_that_was_had_with_another_ending_is_found(tmp_path: Path) -> None:
    write_file(tmp_path / "ocr_vqa/images/12.gif", b"gif")
    assert PictureStore(tmp_path).read("ocr_vqa/images/12.jpg") == b"gif"


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/hostname", "a\0.jpg", ""])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / "secret.jpg", b"secret")
    write_tar(tmp_path / "in/evil.tar", [("../secret.jpg", b"tar"), ("/etc/hostname", b"tar"), ("ok.jpg", b"ok")])
    store = PictureStore(tmp_path / "in")
    with pytest.raises(RowError, match="refused"):
        store.read(name)
    assert store.read("ok.jpg") == b"ok"


def test_archives_stand_for_the_folders_they_are_named_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "coco.tar", [("train2017/1.jpg", b"coco")])
    write_tar(tmp_path / "gqa.tar", [("gqa/images/1.jpg", b"gqa")])
    store = PictureStore(tmp_path)
    assert store.read("coco/train2017/1.jpg") == b"coco"
    assert store.read("gqa/images/1.jpg") == b"gqa"
    with pytest.raises(RowError):
        store.read("vg/train2017/1.jpg")  # the same picture's name in another corpus


def imagenet_in(kind: str, root: Path) -> Path:
    named = {name: jpeg(number) for number, name in enumerate(IDS)}
    if kind == "folders":
        for name, data in named.items():
            write_file(root / "train" / name.split("_")[0] / f"{name}.JPEG", data)
    elif kind == "flat":
        for name, data in named.items():
            write_file(root / f"{name}.jpg", data)
    elif kind == "tar":
        write_tar(root / "train-0.tar", [(f"{name}.jpg", data) for name, data in named.items()])
    elif kind == "nested tar":
        inner = [(f"{name}.JPEG", data) for name, data in named.items()]
        data = write_tar(root.parent / "inner.tar", inner).read_bytes()
        write_tar(root / "ILSVRC2012_img_train.tar", [("n01440764.tar", data)])
    else:
        rows = [
            {"image": {"bytes": data, "path": f"{name}_{name.split('_')[0]}.JPEG"}, "label": 0}
            for name, data in named.items()
        ]
        write_parquet(root / "data/train-00000-of-00001.parquet", rows)
    return root


@pytest.mark.parametrize("kind", ["folders", "flat", "tar", "nested tar", "parquet"])
def test_imagenet_is_matched_by_id_however_it_lies(tmp_path: Path, kind: str) -> None:
    store = PictureStore(imagenet_in(kind, tmp_path / "imagenet"), "imagenet")
    for number, name in reversed(list(enumerate(IDS))):
        assert store.read(f"elsewhere/{name}_n00000000.JPEG") == jpeg(number)
    with pytest.raises(RowError, match="not found"):
        store.read("n01440764_99999.JPEG")


def test_large_row_groups_are_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_store, "_GROUP_BYTES", 0)
    store = PictureStore(imagenet_in("parquet", tmp_path / "imagenet"), "imagenet")
    assert [store.read(name) for name in IDS] == [jpeg(number) for number in range(3)]
    assert store.group is None


def test_an_index_is_built_once_and_again_when_an_archive_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "p" / "a.tar", [("1.jpg", b"one")])
    assert PictureStore(path.parent).read("1.jpg") == b"one"
    walked: list[Path] = []
    real = picture_index.entries
    monkeypatch.setattr(picture_index, "entries", lambda file: walked.append(file) or real(file))
    assert PictureStore(path.parent).read("1.jpg") == b"one"
    assert not walked
    write_tar(path, [("1.jpg", b"new"), ("2.jpg", b"two")])
    assert PictureStore(path.parent).read("2.jpg") == b"two"
    assert len(walked) == 1


def test_broken_archives_are_refused_and_leave_no_index(tmp_path: Path, own_cache: Path) -> None:
    tar = write_tar(tmp_path / "p" / "a.tar", [("1.jpg", b"1" * 5000)])
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a\.tar"):
        PictureStore(tar.parent)
    table = write_parquet(tmp_path / "q" / "a.parquet", [{"image": {"bytes": b"1", "path": "1"}}])
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.parquet.*whole parquet"):
        PictureStore(table.parent)
    write_parquet(table, [{"text": "no pictures"}])
    with pytest.raises(UserError, match=r"expected image\.bytes and image\.path"):
        PictureStore(table.parent)
    assert not list(own_cache.rglob("*.sqlite*")) and not list(own_cache.rglob("*.tmp"))


def test_what_is_no_place_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        PictureStore(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected a folder of pictures"):
        PictureStore(write_file(tmp_path / "a.zip", b"PK"))
    with pytest.raises(UserError, match="'hash'"):
        PictureStore(tmp_path, "hash")  # type: ignore[arg-type]


def test_a_store_is_opened_once_in_a_process_and_anew_after_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_pictures(tmp_path)
    assert open_pictures(tmp_path) is store
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert open_pictures(tmp_path) is not store
