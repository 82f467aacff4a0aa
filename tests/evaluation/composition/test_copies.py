"""Training pictures kept small, and which of them drawings are nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.scenes.records import SceneWriter, scene_pictures
from vargpt_lightning.data.scenes.scene import Scene, Thing
from vargpt_lightning.data.shards.records import DRAWN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.evaluation.base.files import save_picture
from vargpt_lightning.evaluation.composition import training_pictures as module
from vargpt_lightning.evaluation.composition.copies import NEAREST, copies
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures, training_pictures
from vargpt_lightning.utils.files import read_jsonl

APPLE, KITE = Thing("apple", "blue"), Thing("kite", "pink")
SCENES = [
    Scene("colour", (KITE,)),
    Scene("count", (APPLE,) * 3),
    Scene("pair", (KITE, Thing("star", "yellow")), "left of", named_colours=False),
]


def records(scenes: Sequence[Scene] = SCENES) -> list[Record]:
    return list(SceneWriter(scene_pictures(scenes, 64, 0, set()), "train", 0).drawings())


def known() -> TrainingPictures:
    found = training_pictures(records())
    assert found is not None
    return found


def single(data: bytes) -> Record:
    turns = (Turn("user", (TextPart("Draw a leaf."),)), Turn("assistant", (PicturePart(DRAWN, "leaf", data),)))
    return Record("leaf", "openmoji", turns, {"name": "leaf"})


def test_each_picture_that_training_draws_is_kept_once() -> None:
    leaf = single(records()[0].pictures(DRAWN)[0].data or b"")
    found = training_pictures([*records(), *records(), leaf])
    assert found is not None
    assert found.cells == ("kite, pink", "3, apple", "kite, left of, star", "")
    assert found.names == ("a pink kite", "three blue apples", "a kite left of a star", "leaf")
    assert (found.pixels_NSS3.shape, found.total) == ((4, 32, 32, 3), 4)


def test_without_scenes_nothing_is_kept_and_broken_pictures_are_left_out() -> None:
    good = records()[0].pictures(DRAWN)[0].data or b""
    assert training_pictures([single(good)]) is None
    found = training_pictures([*records(), single(b"no picture")])
    assert found is not None and found.cells == known().cells


def test_more_pictures_than_the_limit_are_chosen_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    found, turned = training_pictures(records()), training_pictures(records()[::-1])
    assert found is not None and turned is not None
    assert (len(found.cells), found.total) == (2, 3)
    assert set(found.cells) == set(turned.cells)


def test_what_is_saved_is_loaded_again_and_written_once(tmp_path: Path) -> None:
    known().save(tmp_path)
    before = (tmp_path / "training_pictures.png").stat()
    known().save(tmp_path)
    assert (tmp_path / "training_pictures.png").stat().st_mtime_ns == before.st_mtime_ns
    again = TrainingPictures.load(tmp_path)
    assert again is not None and (again.cells, again.names, again.total) == (known().cells, known().names, 3)
    assert np.array_equal(again.pixels_NSS3, known().pixels_NSS3)
    save_picture(tmp_path / "training_pictures.png", Image.new("RGB", (32, 32)))  # not the table's
    assert TrainingPictures.load(tmp_path) is None
    assert TrainingPictures.load(tmp_path / "nowhere") is None


def test_the_nearest_picture_and_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)  # the last one is in a chunk of its own
    ground = np.zeros((3, 32, 32, 3), np.uint8)
    ground[1], ground[2] = 100, 255
    known = TrainingPictures(ground, ("a", "b", "c"), ("a", "b", "c"), 3)
    drawn = [Image.new("RGB", (64, 64), (value,) * 3) for value in (0, 151, 255, 200)]
    found = known.nearest(drawn)
    assert [place for place, _ in found] == [0, 1, 2, 2]
    assert [distance for _, distance in found] == pytest.approx([0, 51 / 255, 0, 55 / 255], abs=1e-3)
    assert known.nearest([]) == []


def test_copies_are_counted_by_split(tmp_path: Path) -> None:
    for name, record in zip(("kite", "apples"), records(), strict=False):
        (tmp_path / f"{name}.png").write_bytes(record.pictures(DRAWN)[0].data or b"")
    rows = [
        {"id": "s", "split": "seen", "cell": "kite, pink", "files": ["kite.png"]},
        {"id": "u1", "split": "unseen", "cell": "kite, green", "files": ["kite.png"]},
        {"id": "u2", "split": "unseen", "cell": "3, apple", "files": ["apples.png"]},  # were it not held out
        {"id": "u3", "split": "unseen", "cell": "kite, red", "files": []},
    ]
    found = copies(tmp_path, rows, known())
    assert (found["training"], found["of"]) == (3, 3)
    same = {split: (found[split]["same_cell"]["right"], found[split]["same_cell"]["n"]) for split in ("seen", "unseen")}
    assert same == {"seen": (1, 1), "unseen": (1, 2)}
    assert found["seen"]["median_distance"] == pytest.approx(0, abs=1e-3)
    near = {row["id"]: (row["nearest_cell"], row["nearest_name"]) for row in read_jsonl(tmp_path / NEAREST)}
    assert near == {
        "s": ("kite, pink", "a pink kite"),
        "u1": ("kite, pink", "a pink kite"),
        "u2": ("3, apple", "three blue apples"),
    }
