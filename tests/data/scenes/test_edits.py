"""Pictures recoloured by program: exact pairs, and nothing of what is held out in training."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.corpora import Scenes
from vargpt_lightning.data.scenes.edits import EDIT
from vargpt_lightning.data.scenes.scene import scene_of
from vargpt_lightning.data.scenes.source import EDITS, SceneSettings
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder = tmp_path_factory.mktemp("scenes")
    return Scenes(
        categories=["Food & Drink"],
        scene_shapes=6,
        scene_size=32,
        scene_variants=4,
        scene_conversations=1,
        scene_edits=40,
        cache=str(folder),
    )


@pytest.fixture(scope="module")
def records(scenes: Scenes) -> dict[str, list[Record]]:
    return {split: list(scenes.open(split)[EDITS]) for split in ("train", "val", "test")}


def pixels(record: Record, use: str) -> np.ndarray:
    (part,) = record.pictures(use)
    assert part.data is not None
    return np.asarray(Image.open(io.BytesIO(part.data)).convert("RGB")).astype(int)


def test_before_and_after_are_the_same_but_for_the_colour(records: dict[str, list[Record]]) -> None:
    assert len(records["train"]) == 40 and records["val"] and records["test"]
    for record in (record for those in records.values() for record in those):
        (thing,) = scene_of(record.meta[EDIT]).things
        asked, said = (turn.text for turn in record.turns)
        assert record.meta["kind"] == EDIT and thing.colour in asked and f"{thing.colour} {thing.shape}" in said
        assert record.meta["from"] != thing.colour and record.meta["from"] not in re.findall(r"\w+", asked + said)
        before, after = pixels(record, SEEN), pixels(record, DRAWN)
        shown = [(each.min(axis=2) < 250).any(axis=(0, 1)) for each in (before, after)]
        boxes = [np.argwhere((each < 250).any(axis=2)) for each in (before, after)]
        assert all(shown) and (before != after).any()
        # antialiased edges may be nearly white in one of the two colours
        assert all(np.abs(one - other).max() <= 1 for one, other in zip(
            (boxes[0].min(axis=0), boxes[0].max(axis=0)), (boxes[1].min(axis=0), boxes[1].max(axis=0)), strict=True
        ))  # fmt: skip


def test_nothing_that_is_held_out_is_trained(scenes: Scenes, records: dict[str, list[Record]]) -> None:
    held = scenes.scene_settings.cells
    for split, those in records.items():
        for record in those:
            (thing,) = scene_of(record.meta[EDIT]).things
            assert held.colour(thing.shape, thing.colour) == (split == "test")
            assert not held.colour(thing.shape, record.meta["from"])
    keys = {split: {part.key for record in those for part in record.pictures()} for split, those in records.items()}
    drawn = {split: {record.pictures(DRAWN)[0].key for record in records[split]} for split in ("val", "test")}
    assert not keys["train"] & (drawn["val"] | drawn["test"])
    others = {
        part.key for name in ("scene_drawings",) for record in scenes.open("val")[name] for part in record.pictures()
    }
    assert not keys["train"] & others


def test_without_edits_all_is_as_before(scenes: Scenes, tmp_path: Path) -> None:
    assert EDITS in scenes.names and Scenes().scene_settings.edits == 0
    one, other = SceneSettings(seed=3), SceneSettings(seed=3, edits=5)
    assert one.digest() != other.digest()
