from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, write_file, write_parquet, write_tar
from vargpt_lightning.data.sources import picture_index, picture_store
from vargpt_lightning.data.sources.base import RowError
from vargpt_lightning.data.sources.picture_index import imagenet_id
from vargpt_lightning.data.sources.picture_store import PictureStore, open_pictures
from vargpt_lightning.utils.errors import UserError

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


def two_archives(root: Path) -> Path:
    write_tar(root / "gqa.tar", [("images/1.jpg", b"gqa 1"), ("images/2.jpg", b"gqa 2"), ("images/3.jpg", b"three")])
    write_tar(root / "ocr_vqa.tar", [("images/1.jpg", b"ocr 1"), ("images/3.jpg", b"three")])
    return root


def test_each_archive_keeps_its_own_picture_of_a_name(tmp_path: Path) -> None:
    store = PictureStore(two_archives(tmp_path))
    assert store.read("gqa/images/1.jpg") == b"gqa 1" and store.read("ocr_vqa/images/1.jpg") == b"ocr 1"
    with pytest.raises(RowError, match=r"'ocr_vqa/images/2.jpg': not found"):
        store.read("ocr_vqa/images/2.jpg")


def test_a_name_that_archives_disagree_about_is_refused(tmp_path: Path) -> None:
    store = PictureStore(two_archives(tmp_path))
    with pytest.raises(RowError, match=r"'images/1.jpg'.*gqa\.tar and .*ocr_vqa\.tar have different"):
        store.read("images/1.jpg")
    assert store.read("images/2.jpg") == b"gqa 2"
    assert store.read("images/3.jpg") == b"three"  # the same picture in both


def test_archives_count_in_any_case_and_compressed_ones_are_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "gqa.TAR", [("images/1.JPG", b"gqa 1")])
    (tmp_path / "vg.Zip").write_bytes(b"PK")
    store = PictureStore(tmp_path)
    assert store.read("gqa/images/1.jpg") == b"gqa 1"
    with pytest.raises(RowError, match=r"'vg/1.jpg': not found.*vg\.Zip is not read: uncompress it first"):
        store.read("vg/1.jpg")


def test_archives_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for number in (1, 2):
        write_tar(tmp_path / f"part{number}/gqa.tar", [("1.jpg", bytes([number]))])
    store = PictureStore(tmp_path)
    assert [store.read(f"part{number}/gqa/1.jpg") for number in (1, 2)] == [b"\1", b"\2"]
    with pytest.raises(RowError, match="different pictures"):
        store.read("gqa/1.jpg")


@pytest.mark.parametrize("name", ["gqa/00000.tar", "gqa-00000.tar", "data/gqa-00000-of-00002.tar"])
def test_shards_stand_for_their_folder(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / name, [("images/1.jpg", b"gqa")])
    write_tar(tmp_path / "ocr_vqa-00000.tar", [("images/1.jpg", b"ocr")])
    assert PictureStore(tmp_path).read("gqa/images/1.jpg") == b"gqa"


def test_archives_inside_an_archive_keep_their_own_pictures(tmp_path: Path) -> None:
    inner = two_archives(tmp_path / "inner")
    files = [(f"{name}.tar", (inner / f"{name}.tar").read_bytes()) for name in ("gqa", "ocr_vqa")]
    store = PictureStore(write_tar(tmp_path / "all.tar", files))
    assert store.read("gqa/images/1.jpg") == b"gqa 1" and store.read("all/ocr_vqa/images/1.jpg") == b"ocr 1"
    with pytest.raises(RowError, match="different pictures"):
        store.read("images/1.jpg")


def test_rows_of_a_table_that_share_a_name_are_refused_and_a_tars_last_member_counts(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": data, "path": "image.jpg"}} for data in (b"1", b"2")]
    write_parquet(tmp_path / "p/a.parquet", rows)
    with pytest.raises(RowError, match="different pictures"):
        PictureStore(tmp_path / "p").read("image.jpg")
    write_tar(tmp_path / "t/a.tar", [("1.jpg", b"old"), ("1.jpg", b"new")])
    assert PictureStore(tmp_path / "t").read("1.jpg") == b"new"


@pytest.mark.parametrize("had", ["1.gif", "1.PNG", "1.Jpg", "1.JPEG", "1.Webp", "1.tiff", "1.jfif", "1.avif", "1.bmp"])
def test_another_ending_is_found_in_folders_and_archives(tmp_path: Path, had: str) -> None:
    write_file(tmp_path / "folder/a" / had, b"picture")
    write_tar(tmp_path / "tar/a.tar", [(had, b"picture")])
    write_parquet(tmp_path / "table/a.parquet", [{"image": {"bytes": b"picture", "path": had}}])
    for kind in ("folder", "tar", "table"):
        store = PictureStore(tmp_path / kind)
        assert all(store.read(asked) == b"picture" for asked in ("a/1.jpg", "a/1.png", "a/1.heic"))


def test_the_exact_name_counts_before_another_ending(tmp_path: Path) -> None:
    write_file(tmp_path / "a/1.png", b"png")
    write_tar(tmp_path / "a.tar", [("1.jpg", b"jpg"), ("2.JPG", b"large"), ("2.png", b"png")])
    store = PictureStore(tmp_path)
    assert store.read("a/1.jpg") == b"jpg" and store.read("a/1.png") == b"png" and store.read("a/2.jpg") == b"large"
    write_tar(tmp_path / "b/b.tar", [("1.gif", b"gif"), ("1.png", b"png")])
    with pytest.raises(RowError, match="different pictures"):
        PictureStore(tmp_path / "b").read("1.jpg")


def test_links_out_of_the_folder_are_followed_only_where_that_is_allowed(tmp_path: Path) -> None:
    write_file(tmp_path / "secret.jpg", b"secret")
    write_file(tmp_path / "in/own.jpg", b"own")
    (tmp_path / "in/1.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in/2.jpg").symlink_to("own.jpg")
    store = PictureStore(tmp_path / "in", links=False)
    assert store.read("2.jpg") == b"own" and PictureStore(tmp_path / "in").read("1.jpg") == b"secret"
    for name in ("1.jpg", "1.png"):
        with pytest.raises(RowError, match="link that leads out"):
            store.read(name)


def test_a_snapshot_of_the_hubs_cache_links_to_its_blobs(tmp_path: Path) -> None:
    write_file(tmp_path / "blobs/0123", b"picture")
    (tmp_path / "snapshots/main").mkdir(parents=True)
    (tmp_path / "snapshots/main/1.jpg").symlink_to("../../blobs/0123")
    assert PictureStore(tmp_path / "snapshots/main", links=False).read("1.jpg") == b"picture"


@pytest.mark.parametrize("cache", ["cache", "./a/../cache", "~/cache"])
def test_the_cache_may_be_named_relative_to_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VARGPT_CACHE", cache)
    store = PictureStore(two_archives(tmp_path / "p"))
    monkeypatch.chdir("/")
    assert store.read("gqa/images/1.jpg") == b"gqa 1" and list((tmp_path / "cache/pictures").iterdir())
