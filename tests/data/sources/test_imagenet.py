from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, split, write_file, write_parquet, write_tar
from tests.data.sources.test_picture_store import IDS, imagenet_in
from vargpt_lightning.data.sources import imagenet
from vargpt_lightning.data.sources.phrases import with_article
from vargpt_lightning.utils.errors import UserError


@pytest.mark.parametrize("kind", ["folders", "tar", "nested tar"])
def test_pictures_become_requests_for_their_class(tmp_path: Path, kind: str) -> None:
    good, bad = split(imagenet.read(imagenet_in(kind, tmp_path / "imagenet")))
    assert not bad
    assert sorted(record.id for record in good) == sorted(IDS)
    for record in good:
        name = {"n01440764": "a tench", "n01443537": "a goldfish"}[record.meta["class"]]
        user, assistant = record.turns
        assert name in user.text and name in assistant.text
        (picture,) = record.pictures("drawn")
        assert picture.data == jpeg(IDS.index(record.id)) and picture.key == f"imagenet/{record.id}"


def test_labels_of_parquet_files_are_places_among_the_ids(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": jpeg(), "path": None}, "label": 2},
        {"image": {"bytes": jpeg(), "path": "n01443537_3_n01443537.JPEG"}, "label": -1},
        {"image": {"bytes": None, "path": "n01443537_4.JPEG"}, "label": 1},
        {"image": {"bytes": jpeg(), "path": "n00000000_4.JPEG"}, "label": None},
    ]
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", rows)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", rows)
    good, bad = split(imagenet.read(tmp_path))
    assert [record.meta["class"] for record in good] == ["n01484850", "n01443537"]
    assert "great white shark" in good[0].turns[0].text
    assert "no bytes" in bad[0].reason and "not among the 1000" in bad[1].reason


def test_wording_follows_from_the_seed_alone_and_varies(tmp_path: Path) -> None:
    files = [(f"n01440764_{number}.jpg", jpeg(number)) for number in range(40)]
    path = write_tar(tmp_path / "a.tar", files)
    first, again, other = (split(imagenet.read(path, seed=seed))[0] for seed in (0, 0, 1))
    assert first == again != other
    assert len({record.turns[0].text for record in first}) > 6
    # what stands beside it changes nothing
    short, _ = split(imagenet.read(write_tar(tmp_path / "b.tar", files[10:20])))
    assert short == first[10:20]


def test_folders_may_be_named_for_their_classes_or_by_a_list(tmp_path: Path) -> None:
    write_file(tmp_path / "a/old_owl/1.png", jpeg())
    write_file(tmp_path / "a/old_owl/2.png", b"")
    good, bad = split(imagenet.read(tmp_path / "a"))
    assert "an old owl" in good[0].turns[0].text and len(bad) == 1
    write_file(tmp_path / "b/n00000001/n00000001_1.jpg", jpeg())
    classes = write_file(tmp_path / "classes.txt", b"n00000001 red thing, thing\n")
    (record,), _ = split(imagenet.read(tmp_path / "b", classes=classes))
    assert "a red thing" in record.turns[0].text


def test_the_thousand_classes_are_there_in_the_order_of_labels() -> None:
    names = imagenet.class_names(str(imagenet.CLASSES))
    assert len(names) == len(set(names.values())) == 1000
    assert next(iter(names)) == "n01440764" and list(names.values())[999] == "toilet tissue"
    assert list(names.values())[207] == "golden retriever"


def test_articles_fit_the_names() -> None:
    wanted = {
        "tench": "a tench",
        "ox": "an ox",
        "unicycle": "a unicycle",
        "hourglass": "an hourglass",
        "sunglasses": "sunglasses",
        "school bus": "a school bus",
        "crane (bird)": "a crane (bird)",
    }
    assert {name: with_article(name) for name in wanted} == wanted


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture of split 'train' found; expected ImageNet"):
        list(imagenet.read(tmp_path))
    write_tar(tmp_path / "v" / "ILSVRC2012_img_val.tar", [("ILSVRC2012_val_00000001.JPEG", jpeg())])
    with pytest.raises(UserError, match="no picture of split 'train'"):
        list(imagenet.read(tmp_path / "v"))
    with pytest.raises(UserError, match="line 1: 'tench'; expected such as"):
        list(imagenet.read(tmp_path, classes=write_file(tmp_path / "c.txt", b"tench\n")))


@pytest.mark.parametrize("ending", ["Jpg", "JPEG", "jpeg", "Png", "tiff", "AVIF", "jfif", "bmp"])
def test_endings_count_in_any_case_and_kind(tmp_path: Path, ending: str) -> None:
    write_file(tmp_path / f"folders/train/n01440764/n01440764_1.{ending}", jpeg())
    write_tar(tmp_path / "tar/train-0.tar", [(f"n01440764_1.{ending}", jpeg())])
    for kind in ("folders", "tar"):
        good, bad = split(imagenet.read(tmp_path / kind))
        assert [record.id for record in good] == ["n01440764_1"] and not bad


@pytest.mark.parametrize("kind", ["folders", "tar"])
def test_pictures_of_kinds_that_are_not_read_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    write_file(tmp_path / "folders/train/n01440764/n01440764_1.HEIC", jpeg())
    write_tar(tmp_path / "tar/train-0.tar", [("n01440764_1.HEIC", jpeg())])
    good, (bad,) = split(imagenet.read(tmp_path / kind))
    assert not good and ".heic" in bad.reason and ".jpg" in bad.reason
