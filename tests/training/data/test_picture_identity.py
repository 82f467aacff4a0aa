"""Pictures are known by their content: those of one name in two corpora, splits or projects never stand for another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.conftest import png
from tests.tiny import tiny_stage, write_experiment
from tests.tiny_training import tiny_model, tiny_stage_data
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.training.final_evaluation import collect

WARM, COLD = ("red", "orange", "brown"), ("blue", "green", "black")


def shown(place: int, colour: str) -> Record:
    turns = (
        Turn("user", (PicturePart(SEEN, f"photos/{place}", png(colour)), TextPart("Which colour?"))),
        Turn("assistant", (TextPart(colour),)),
    )
    return Record(f"photos-{place}", "photos", turns, {"kind": "colour", "answer": colour, "name": colour})


def asked_for(place: int, colour: str) -> Record:
    drawn = PicturePart(DRAWN, f"photos/{place}", png(colour))
    turns = (Turn("user", (TextPart(f"Draw {colour}."),)), Turn("assistant", (TextPart("Here:"), drawn)))
    return Record(f"photos-{place}", "photos", turns, {"kind": "draw", "name": colour})


def packed(folder: Path, colours: tuple[str, ...], make: Any = shown, split: str = "train") -> str:
    """A corpus whose records and pictures are called the same whatever the colours."""
    shutil.rmtree(folder, ignore_errors=True)
    write_source((make(place, colour) for place, colour in enumerate(colours)), folder, split=split)
    return str(folder)


def prepared(tiny_data: dict[str, Any], folder: Path, seen: int = 1, **corpora: dict[str, str]) -> StageData:
    data = tiny_stage_data(tiny_data | {"val": {}} | corpora, folder / "cache", seen_variants=seen)
    data.prepare(tiny_model(), tiny_stage("base", data=dict.fromkeys(corpora["train"], 1.0), decoder_alone=False))
    return data


def wrong(data: StageData) -> list[str]:
    """The records that are given other features than those of their own pictures."""
    tower, reader, found = tiny_model(), data._seen.reader(), []
    assert data._features is not None
    for split in ("train", "val"):
        for name, source in data.sources(split).items():
            for record in source:
                (part,) = record.pictures(SEEN)
                for variant in range(data._features.variants_of(part.key)):
                    own = tower.see(reader.read(part.data, part.name, variant)[None])[0]
                    if not torch.allclose(data._features.read(part.data, part.key, variant), own, atol=1e-5):
                        found.append(f"{split} {name} {record.id} {variant}")
    return found


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "shared"))
    return tmp_path / "shared"


@torch.no_grad()
@pytest.mark.parametrize("seen", [1, 3])
def test_features_of_pictures_of_one_name_are_their_own(seen: int, tiny_data: dict[str, Any], tmp_path: Path) -> None:
    warm, cold = packed(tmp_path / "warm", WARM), packed(tmp_path / "cold", COLD)
    assert wrong(prepared(tiny_data, tmp_path, seen, train={"a": warm})) == []
    assert wrong(prepared(tiny_data, tmp_path, seen, train={"a": cold})) == [], "another project, one cache"
    assert wrong(prepared(tiny_data, tmp_path, seen, train={"a": warm, "b": cold})) == [], "one mixture"
    assert wrong(prepared(tiny_data, tmp_path, seen, train={"a": warm}, val={"a": cold})) == [], "two splits"
    packed(tmp_path / "warm", WARM[::-1])
    assert wrong(prepared(tiny_data, tmp_path, seen, train={"a": warm})) == [], "packed anew"


@torch.no_grad()
def test_a_picture_of_both_splits_is_varied_in_training(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    train, val = packed(tmp_path / "train", WARM), packed(tmp_path / "val", (WARM[0], *COLD), split="val")
    data = prepared(tiny_data, tmp_path, 3, train={"a": train}, val={"a": val})
    assert wrong(data) == [] and data._features is not None
    counts = [data._features.variants_of(record.pictures()[0].key) for record in data.sources("val")["a"]]
    assert counts == [3, 1, 1, 1]


@torch.no_grad()
def test_features_of_another_layer_are_other_features(tiny_data: dict[str, Any], tmp_path: Path, shared: Path) -> None:
    """The tower's weights do not say which of its layers is looked at."""
    for feature in ("head", "blocks", "levels"):
        data = prepared(tiny_data, tmp_path, train={"a": packed(tmp_path / "warm", WARM)})
        data.config.vision.feature = feature  # type: ignore[assignment]
        data._seen.build(tiny_model())
    assert len(list((shared / "features").iterdir())) == 3


def test_a_packed_picture_is_known_by_its_file(tmp_path: Path) -> None:
    one, two, same = (
        ShardDataset(packed(tmp_path / name, colours, make))
        for name, colours, make in (("1", WARM, shown), ("2", COLD, shown), ("3", WARM, asked_for))
    )
    keys = [[part.key for record in each for part in record.pictures()] for each in (one, two, same)]
    assert keys[0] == keys[2] and not set(keys[0]) & set(keys[1]) and len({*keys[0], *keys[1]}) == 6
    assert [part.name for part in one[0].pictures()] == ["photos/0"] and one[0] == shown(0, "red")
    assert one[0].to_json() == shown(0, "red").to_json(), "what is packed again keeps its names"


def test_an_evaluation_asks_about_every_picture_by_itself(tiny_experiment: dict[str, Any], tmp_path: Path) -> None:
    make = {"warm": (WARM, asked_for), "cold": (COLD, asked_for), "shown": (WARM, shown), "more": (COLD, shown)}
    train = {name: packed(tmp_path / name, *each) for name, each in make.items()}
    val = {name: packed(tmp_path / "val" / name, ("pink", "white"), make[name][1], "val") for name in ("warm", "shown")}
    tiny_experiment["data"]["init_args"] |= {"train": train, "val": val}
    tiny_experiment["stages"] = [{**tiny_experiment["stages"][0], "data": {"warm": 1.0}}]
    asked = collect(load_experiment(["-c", str(write_experiment(tmp_path / "e.yaml", tiny_experiment))]), 8)
    names = {picture.key: picture.name for picture in asked.pictures}
    assert sorted(names.values()) == sorted([*WARM, *COLD, "pink", "white"])
    for picture in asked.pictures:
        assert torch.equal(*(torch.tensor(image.getpixel((4, 4))) for image in (picture.image, colour(picture.name))))
    assert sorted(names[drawing.picture or ""] for drawing in asked.drawings) == sorted(names.values())
    assert all(drawing.prompt == f"Draw {names[drawing.picture or '']}." for drawing in asked.drawings)
    assert len({drawing.id for drawing in asked.drawings}) == 8
    assert [names[question.picture] for question in asked.questions] == ["pink", "white"]


def colour(name: str) -> Any:
    from PIL import Image

    return Image.new("RGB", (8, 8), name)
