"""Batches of one size of pictures each: what they hold, where they resume, and that they train."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny import tiny_config, tiny_stage
from tests.tiny_training import fit_stage
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

SIZES = ((1, (2, 3)), (1, (3, 2)))
SHAPES = {0: (8, 8), 1: (8, 12), 2: (12, 8)}
TOKENS = {0: 5, 1: 7, 2: 7}
MIXED = Stage("mixed", ["language_model"], {"drawings": 2.0, "questions": 1.0}, steps=8, batch_size=2)


def png(width: int, height: int, colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]) -> dict[str, Any]:
    """Fourteen requests: seven squares, four wide pictures, three tall ones; and four questions."""
    folder = tmp_path_factory.mktemp("sizes")
    shapes = [(20, 20)] * 7 + [(30, 20)] * 4 + [(20, 31)] * 3
    colours = ("red", "green", "blue", "black", "white", "yellow", "gray")
    files = [png(*shape, colours[number % 7]) for number, shape in enumerate(shapes)]
    drawings = [
        Record(
            f"d{number}",
            "test",
            (
                Turn("user", (TextPart("draw"),)),
                Turn("assistant", (TextPart("So."), PicturePart(DRAWN, f"p{number}", data))),
            ),
        )
        for number, data in enumerate(files)
    ]
    questions = [
        Record(
            f"q{number}",
            "test",
            (
                Turn("user", (PicturePart(SEEN, f"p{number}", files[number]), TextPart("what"))),
                Turn("assistant", (TextPart("So."),)),
            ),
        )
        for number in (0, 4, 8, 12)
    ]
    arguments: dict[str, Any] = {"tokenizer": tiny_data["tokenizer"], "train": {}, "val": {}}
    for name, records in (("drawings", drawings), ("questions", questions)):
        for split in ("train", "val"):
            write_source(records, folder / f"{split}-{name}", split=split)
            arguments[split][name] = str(folder / f"{split}-{name}")
    return arguments


def sized_data(corpora: dict[str, Any], cache: Path, kind: str = "indices", **changes: Any) -> StageData:
    config = tiny_config()
    config = replace(config, tokenizer=replace(config.tokenizer, kind=kind, sizes=SIZES, attention=None))
    return StageData(config, Packed(**corpora, **changes), TextTokenizer.load(corpora["tokenizer"]), cache, seed=0)


def ids(batch: Any) -> list[str]:
    return [record.id for record in batch["rows"].records]


def kept(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


def check(batch: dict[str, Any], tokens: dict[int, int] = TOKENS) -> int | None:
    """Hold a batch against its size, and return this; None for words alone."""
    size = batch.get("size", 0)
    if "drawn_pixels" not in batch:
        assert "size" not in batch and all(name.startswith("q") for name in ids(batch))
        return None
    assert batch["drawn_pixels"].shape[1:3] == SHAPES[size]
    assert (batch["input_ids"] == 6).sum().item() == tokens[size] * len(batch["drawn_pixels"])
    square, wide, tall = (range(7), range(7, 11), range(11, 14))
    drawn = [int(name[1:]) for name in ids(batch) if name.startswith("d")]
    assert all(number in (square, wide, tall)[size] for number in drawn)
    return int(size)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mixture": "counts", "data": {"drawings": 9.0, "questions": 3.0}}, {"max_tokens": 192, "packing": True}],
    ids=["weights", "counts", "packed"],
)
def test_batches_hold_one_size_and_resume(changes: dict[str, Any], corpora: dict[str, Any], tmp_path: Path) -> None:
    stage = replace(MIXED, **changes)
    loaded = sized_data(corpora, tmp_path)
    whole = list(loaded.train_loader(stage, 8, 0))
    assert {0, 1, 2} <= {check(batch) for batch in whole}
    again = sized_data(corpora, tmp_path)
    rest = list(again.train_loader(stage, 8, 5))
    assert [ids(batch) for batch in rest] == [ids(batch) for batch in whole[5:]]
    for one, other in zip(rest, whole[5:], strict=True):
        assert one.get("size") == other.get("size")
        assert kept(one).keys() == kept(other).keys()
        assert all(torch.equal(value, kept(other)[name]) for name, value in kept(one).items())


def test_processes_have_one_size_in_a_step_and_share_what_one_would_have(
    corpora: dict[str, Any], tmp_path: Path
) -> None:
    data = sized_data(corpora, tmp_path)
    alone = list(data.train_loader(replace(MIXED, batch_size=4), 8, 0))
    ranks = [list(data.train_loader(MIXED, 8, 0, rank, 2)) for rank in range(2)]
    for one, first, second in zip(alone, *ranks, strict=True):
        assert check(first) == check(second) == check(one)
        assert ids(first) + ids(second) == ids(one)


def test_epochs_and_records_count_corpora_as_before(corpora: dict[str, Any], tmp_path: Path) -> None:
    data = sized_data(corpora, tmp_path)
    stage = replace(MIXED, data={"drawings": 1.0}, mixture="passes", steps=None, epochs=1)
    total = data.order.total_steps(stage)
    assert total == 4 + 2 + 2, "a group's last batch is filled up"
    assert data.order.repeats(stage, total)["drawings"] == {"records": 14, "samples": 16, "times": 1.143}
    some = replace(stage, records=5)
    seen = {name for batch in data.train_loader(some, 6, 0) for name in ids(batch)}
    assert len(seen) == 5 and data.order.total_steps(some) <= 5


def test_held_out_batches_hold_one_size(corpora: dict[str, Any], tmp_path: Path) -> None:
    data = sized_data(corpora, tmp_path)
    loader = data.validation_loader(MIXED, 6)
    assert loader is not None and {check(batch) for batch in loader} == {0, 1, 2, None}


@pytest.mark.parametrize("kind", ["indices", "bits"])
def test_a_model_is_trained_on_several_sizes(kind: str, corpora: dict[str, Any], tmp_path: Path) -> None:
    data = sized_data(corpora, tmp_path, kind, cache_features=True)
    torch.manual_seed(0)
    model = VARGPT(data.config)
    stage = tiny_stage("tokenizer", data={"drawings": 1}, steps=8, warmup_autoencoder=0.25)
    fit = fit_stage(data, model, stage)
    assert all(torch.isfinite(torch.tensor(list(fit.values("train/l1").values()))))
    parts = ["language_model", "visual_decoder", "generation_projectors"]
    stage = Stage("both", parts, {"drawings": 1.0}, steps=6, batch_size=2, average="scales")
    fit = fit_stage(data, model, stage, limit_val_batches=2)
    losses = list(fit.values("train/image_loss").values())
    assert len(losses) == 6 and all(torch.isfinite(torch.tensor(losses)))
    assert {f"train/image_loss_scale_{k}" for k in (1, 2)} <= {name for _, row in fit.rows for name in row}


def test_codes_that_are_required_are_refused(corpora: dict[str, Any], tmp_path: Path) -> None:
    data = sized_data(corpora, tmp_path, visual_tokens="require")
    with pytest.raises(UserError, match=r"visual_tokens is 'require', but codes are kept of one size"):
        data.prepare(VARGPT(data.config), MIXED)
