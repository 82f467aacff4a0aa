"""Stages that read visual tokens made before: the same batches as without, and never those of something else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import corpora, tiny_config, tiny_stage, write_corpora
from tests.tiny_training import tiny_model, tiny_stage_data
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.data.visual_tokens.job import tokenize
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.training.data.visual_tokens import drawn_reader, recipe_of
from vargpt_lightning.utils.errors import UserError

DRAW = tiny_stage("draw", steps=6)
VARIED = {"drawn_fit": "var", "drawn_variants": 3, "drawn_flip": True}


@pytest.fixture
def packed(tiny_data: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny corpora, to be written beside."""
    folder = Path(tiny_data["tokenizer"]).parent
    copied = Path(shutil.copytree(folder, tmp_path / "packed"))

    def there(value: Any) -> Any:
        return {name: str(copied / Path(path).name) for name, path in value.items()}

    return {
        "train": there(tiny_data["train"]),
        "val": there(tiny_data["val"]),
        "tokenizer": str(copied / "tokenizer"),
        "cache_features": False,
    }


def beside(model: VARGPT, folder: str, fit: str = "crop", variants: int = 1, flip: bool = False) -> Path:
    """Make visual tokens beside a folder's shards."""
    reader = drawn_reader(tiny_config().tokenizer, fit, variants, flip)
    recipe = recipe_of(model.image_tokenizer, model.config.tokenizer, reader)
    encode = model.image_tokenizer.eval().encode
    source = ShardDataset(folder)
    return tokenize(source, source.folder / "visual_tokens", recipe, reader, encode, tokens=5, batch_size=4)


def batches(data: StageData, model: VARGPT, split: str = "train") -> list[dict[str, Any]]:
    data.prepare(model, DRAW)
    loader = data.train_loader(DRAW, 6, 0) if split == "train" else data.validation_loader(DRAW, 2)
    assert loader is not None
    return [data.scaled(batch) for batch in loader]


@pytest.mark.parametrize(("workers", "settings"), [(0, {}), (0, VARIED), (2, VARIED)])
def test_batches_hold_exactly_what_would_be_encoded(
    packed: dict[str, Any], tmp_path: Path, workers: int, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model()
    data = tiny_stage_data(packed, tmp_path / "run" / "cache", workers=workers, **settings)
    pixels = batches(data, model)
    assert capsys.readouterr().out == ""
    made = beside(model, packed["train"]["drawings"], *settings.values())
    codes = batches(data, model)
    said = capsys.readouterr().out
    assert said == (
        f"stage draw: visual tokens of 9 drawn pictures are read, not encoded again: drawings from {made}\n"
    )
    assert len(codes) == len(pixels) == 6
    for one, two in zip(codes, pixels, strict=True):
        assert torch.equal(one["drawn_indices"], model.image_tokenizer.encode(two["drawn_pixels"]))
        assert torch.equal(one["input_ids"], two["input_ids"]) and "drawn_pixels" not in one
    if settings:
        assert len({tuple(row) for batch in codes for row in batch["drawn_indices"].tolist()}) > 9
    assert "drawn_pixels" in batches(data, model, "val")[0], "held-out pictures have no codes, and need none"


def test_a_new_crop_each_time_follows_from_seed_epoch_record_and_picture(
    packed: dict[str, Any], tmp_path: Path
) -> None:
    """A run that starts later, with any number of workers, sees the crops of an unbroken one."""
    stage = tiny_stage("draw", steps=8)
    seen = []
    for workers, start in ((0, 0), (0, 3), (2, 3)):
        data = tiny_stage_data(packed, tmp_path / "c", workers=workers, drawn_fit="var", drawn_variants=0)
        data.prepare(tiny_model(), stage)
        seen.append([batch["drawn_pixels"] for batch in data.train_loader(stage, 8, start)])
    assert all(map(torch.equal, seen[0][3:], seen[1])) and all(map(torch.equal, seen[1], seen[2]))
    first = {picture.numpy().tobytes() for picture in torch.cat(seen[0][:3])}
    later = {picture.numpy().tobytes() for picture in torch.cat(seen[0][3:6])}
    assert len(first) == 9 and len(first & later) < 9, "the second epoch has crops of its own"


def test_validation_takes_the_centre_from_codes_of_any_variants(packed: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    data = tiny_stage_data(packed, tmp_path / "run" / "cache", **VARIED)
    pixels = batches(data, model, "val")
    for folder in (packed["train"]["drawings"], packed["val"]["drawings"]):
        beside(model, folder, *VARIED.values())
    for one, two in zip(batches(data, model, "val"), pixels, strict=True):
        assert torch.equal(one["drawn_indices"], model.image_tokenizer.encode(two["drawn_pixels"]))


@pytest.mark.parametrize("kind", ["tokenizer", "fit", "variants", "endless", "shards"])
def test_what_does_not_fit_is_not_used_and_said(kind: str, packed: dict[str, Any], tmp_path: Path) -> None:
    told = {
        "tokenizer": "made with another tokenizer",
        "fit": "read otherwise .fit 'crop', now 'var'",
        "variants": "made of 1 variants of each picture, now 3",
        "endless": "a new one each time",
        "shards": "made of other shards",
    }[kind]
    model, folder = tiny_model(), packed["train"]["drawings"]
    fits = {"fit": "crop", "tokenizer": "crop"}.get(kind, "var")
    beside(tiny_model(1) if kind == "tokenizer" else model, folder, fits)
    wanted = {
        "tokenizer": {},
        "variants": VARIED | {"drawn_flip": False},
        "endless": {"drawn_fit": "var", "drawn_variants": 0},
    }
    settings = wanted.get(kind, {"drawn_fit": "var"})
    if kind == "shards":
        write_source(list(reversed(corpora()["drawings"][:9])), Path(folder), split="train")
    auto = tiny_stage_data(packed, tmp_path / "run" / "cache", **settings)
    with pytest.warns(
        UserWarning, match=f"(?s)visual tokens of drawings cannot be used: .*{told}.*Pictures are encoded again"
    ):
        assert all("drawn_pixels" in batch for batch in batches(auto, model))
    required = tiny_stage_data(packed, tmp_path / "run" / "cache", visual_tokens="require", **settings)
    anew = (
        "data.drawn_variants: N"
        if kind == "endless"
        else f"`vargpt data tokenize {folder} --tokenizer {tmp_path / 'run'}"
    )
    with pytest.raises(UserError, match=f"stage draw: .*{told}.*{anew}"):
        required.prepare(model, DRAW)


def test_where_features_are_cached_codes_are_made_that_fit(packed: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    beside(tiny_model(1), packed["train"]["drawings"])
    data = tiny_stage_data(packed, tmp_path / "run" / "cache", cache_features=True)
    with pytest.warns(UserWarning, match="another tokenizer"):
        codes = batches(data, model)
    data.corpora.visual_tokens = "off"
    for one, two in zip(codes, batches(data, model), strict=True):
        assert torch.equal(one["drawn_indices"], model.image_tokenizer.encode(two["drawn_pixels"]))
    assert len(list(data.cache.glob("visual_tokens/*-drawings/*/index.json"))) == 2, "for training and validation"


def test_codes_that_are_required_have_to_be_there(packed: dict[str, Any], tmp_path: Path) -> None:
    data = tiny_stage_data(packed, tmp_path / "cache", visual_tokens="require")
    with pytest.raises(
        UserError, match=r"visual tokens of drawings cannot be used: .*there are none\. `vargpt data tok"
    ):
        data.prepare(tiny_model(), DRAW)
    data.prepare(tiny_model(), tiny_stage("tokenizer"))  # which trains the tokenizer, and has no use for them


def test_all_corpora_of_a_batch_have_codes_or_none(packed: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model()
    beside(model, packed["train"]["drawings"])
    both = replace(DRAW, data={"drawings": 1.0, "pictures": 1.0})
    data = tiny_stage_data(packed, tmp_path / "cache")
    data.prepare(model, both)
    assert all("drawn_pixels" in batch for batch in data.train_loader(both, 6, 0))
    beside(model, packed["train"]["pictures"])
    data.prepare(model, both)
    assert all("drawn_indices" in batch for batch in data.train_loader(both, 6, 0))


def test_a_bad_picture_is_passed_over_the_same_way(tmp_path: Path) -> None:
    packed = write_corpora(tmp_path / "packed") | {"cache_features": False}
    members = corpora()["drawings"][:9]
    parts = [part for record in members for part in record.pictures()]
    spoilt = [
        record.with_pictures([b"no picture" if number == 3 else part.data])
        for number, (record, part) in enumerate(zip(members, parts, strict=True))
    ]
    write_source(spoilt, Path(packed["train"]["drawings"]), split="train")
    model = tiny_model()
    data = tiny_stage_data(packed, tmp_path / "cache")
    pixels = batches(data, model)
    beside(model, packed["train"]["drawings"])
    codes = batches(data, model)
    assert sum(batch["skipped"] for batch in pixels) == sum(batch["skipped"] for batch in codes) == 2
    for one, two in zip(codes, pixels, strict=True):
        assert torch.equal(one["drawn_indices"], model.image_tokenizer.encode(two["drawn_pixels"]))


def test_self_correction_takes_the_pictures(packed: dict[str, Any], tmp_path: Path) -> None:
    stage = replace(DRAW, self_correction=SelfCorrection())
    data = tiny_stage_data(packed, tmp_path / "cache")
    data.prepare(tiny_model(), stage)
    batch = next(iter(data.train_loader(stage, 1, 0)))
    assert "drawn_pixels" in batch and "drawn_indices" not in batch
    required = tiny_stage_data(packed, tmp_path / "cache", visual_tokens="require")
    with pytest.raises(UserError, match=r"self_correction needs the pictures, but data.visual_tokens is 'require'"):
        required.prepare(tiny_model(), stage)


def test_bits_are_made_where_features_are_cached(packed: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config()
    config.tokenizer = replace(config.tokenizer, kind="bits", code_size=20)
    torch.manual_seed(0)
    model = VARGPT(config).eval()
    corpora = tiny_stage_data(packed, tmp_path / "cache", cache_features=True).corpora
    data = StageData(config, corpora, TextTokenizer.load(packed["tokenizer"]), tmp_path / "cache", seed=0)
    codes = batches(data, model)
    data.corpora.visual_tokens = "off"
    for one, two in zip(codes, batches(data, model), strict=True):
        assert one["drawn_indices"].shape[1:] == (5, 20) and one["drawn_indices"].dtype == torch.long
        assert torch.equal(one["drawn_indices"], model.image_tokenizer.encode(two["drawn_pixels"]))
