from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.images.pictures import PictureError, PictureReader
from vargpt_lightning.data.loading.collate import Collator, collate
from vargpt_lightning.data.loading.examples import Example, ExampleMaker, _Chooser
from vargpt_lightning.data.loading.feature_cache import FeatureCache
from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler, Place, SkippedRecord
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError

N, L = 4, 5


@pytest.fixture
def template(tokenizer: TextTokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer, N, L)


@pytest.fixture
def maker(template: ChatTemplate) -> ExampleMaker:
    return ExampleMaker(template, PictureReader(8, variants=4), PictureReader(16), context=64)


def test_a_batch_of_pixels(maker: ExampleMaker, tokenizer: TextTokenizer) -> None:
    both = Record("c", "t", asked("x").turns + drawn("y").turns)
    examples = [maker(asked("a")), maker(drawn("b")), maker(both)]
    batch = collate(examples, tokenizer.pad_id)
    longest = max(len(example.ids) for example in examples)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (3, longest)
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long
    assert batch["attention_mask"].dtype == torch.bool
    for row, example in enumerate(examples):
        length = len(example.ids)
        assert batch["input_ids"][row].tolist() == example.ids.tolist() + [tokenizer.pad_id] * (longest - length)
        assert batch["labels"][row].tolist() == example.labels.tolist() + [-100] * (longest - length)
        assert batch["attention_mask"][row].tolist() == [True] * length + [False] * (longest - length)
    assert batch["pixel_values"].shape == (2, 3, 8, 8) and batch["drawn_pixels"].shape == (2, 3, 16, 16)
    assert [record.id for record in batch["rows"].records] == ["a", "b", "c"]
    assert (batch["input_ids"] == tokenizer.image_id).sum() == 2 * N
    assert (batch["input_ids"] == tokenizer.image_gen_id).sum() == 2 * L


def test_pictures_come_row_by_row(maker: ExampleMaker, tokenizer: TextTokenizer) -> None:
    colours = ["red", "blue", "lime"]
    batch = collate([maker(asked(colour, data=png(colour))) for colour in colours], tokenizer.pad_id)
    assert batch["pixel_values"].mean((2, 3)).tolist() == [[1, -1, -1], [-1, -1, 1], [-1, 1, -1]]


def test_keys_of_what_is_not_there_are_absent(maker: ExampleMaker, tokenizer: TextTokenizer) -> None:
    assert "drawn_pixels" not in collate([maker(asked("a"))], tokenizer.pad_id)
    assert "pixel_values" not in collate([maker(drawn("a"))], tokenizer.pad_id)


def with_codes(record: Record, codes_VL: np.ndarray) -> Record:
    return record.with_pictures([None], [codes_VL])


def test_a_batch_of_cached_pictures(template: ChatTemplate, tokenizer: TextTokenizer) -> None:
    pictures = {name: png(name) for name in ("red", "blue")}
    features = FeatureCache.build(pictures, PictureReader(8), lambda x: x.flatten(2)[:, :N], network="n")
    maker = ExampleMaker(template, features, PictureReader(16))
    codes_VL = np.arange(L, dtype=np.uint16)[None]
    batch = collate([maker(asked("red")), maker(with_codes(drawn("blue"), codes_VL))], tokenizer.pad_id)
    assert batch["vision_features"].shape == (1, 3, 64) and batch["drawn_indices"].tolist() == [list(range(L))]
    assert batch["drawn_indices"].dtype == torch.long
    assert not {"pixel_values", "drawn_pixels"} & set(batch)


def test_codes_are_those_of_the_variant_that_would_have_been_read(template: ChatTemplate) -> None:
    """A picture read in training and its codes made before take the same variant of the same draw."""
    stripe, key = _half_red(), "picture"
    reader = PictureReader(16, fit="var", variants=7)
    codes_VL = np.repeat(np.arange(7, dtype=np.uint16)[:, None], L, axis=1)
    crops = [reader.read(stripe, key, variant).flatten().tolist() for variant in range(7)]
    two = Record("c", "t", drawn(key, stripe).turns + drawn(key, stripe).turns)
    differ = 0
    for epoch in range(12):
        maker, place = ExampleMaker(template, None, reader, seed=3), Place("s", 0, epoch)
        pixels = maker(two, place).drawn
        codes = maker(two.with_pictures([None, None], [codes_VL, codes_VL]), place).drawn
        variants = [int(each[0]) for each in codes]
        assert [picture.flatten().tolist() for picture in pixels] == [crops[variant] for variant in variants]
        assert all(len(set(each.tolist())) == 1 for each in codes)
        differ += variants[0] != variants[1]
    assert differ > 4, "each picture of a record has a choice of its own"
    unvaried = ExampleMaker(template, None, reader, vary=False)(with_codes(drawn(key), codes_VL), Place("s", 0, 1))
    assert unvaried.drawn[0].tolist() == [0] * L


def test_a_picture_without_codes_is_a_bad_one(maker: ExampleMaker) -> None:
    with pytest.raises(SkippedRecord, match="'b': could not be decoded when its visual tokens were made"):
        maker(with_codes(drawn("b"), np.empty((0, L), np.uint16)))


def test_rows_can_be_padded_to_a_multiple(maker: ExampleMaker, tokenizer: TextTokenizer) -> None:
    assert collate([maker(asked("a"))], tokenizer.pad_id, multiple_of=32)["input_ids"].shape[1] % 32 == 0


def test_variants_follow_from_seed_record_and_epoch(template: ChatTemplate) -> None:
    reader = PictureReader(8, variants=8)
    stripe = _half_red()

    def pixels(epoch: int, seed: int = 0, vary: bool = True) -> torch.Tensor:
        maker = ExampleMaker(template, reader, seed=seed, vary=vary)
        return maker(asked("a", data=stripe), Place("s", 0, epoch)).seen[0]

    epochs = [pixels(epoch) for epoch in range(8)]
    assert all(torch.equal(one, pixels(epoch)) for epoch, one in enumerate(epochs))
    assert len({tuple(one.flatten().tolist()) for one in epochs}) > 2
    assert any(not torch.equal(pixels(epoch, seed=1), one) for epoch, one in enumerate(epochs))
    assert all(torch.equal(pixels(epoch, vary=False), reader.read(stripe, "a")) for epoch in range(4))


def _half_red() -> bytes:
    image = Image.new("RGB", (32, 32), "white")
    image.paste((255, 0, 0), (0, 0, 12, 32))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_prompts_are_unvaried_and_checked(maker: ExampleMaker) -> None:
    example = maker.prompt(asked("a"))
    assert set(example.labels) == {-100} and len(example.seen) == 1
    with pytest.raises(UserError, match="and 60 for the answer; the model's context holds 64"):
        maker.prompt(asked("a"), reserve=60)
    with pytest.raises(PictureError, match="a: 9 bytes that are no picture"):
        maker.prompt(asked("a", data=b"something"))


def test_what_cannot_be_trained_is_skipped(maker: ExampleMaker, template: ChatTemplate) -> None:
    with pytest.raises(SkippedRecord, match="no picture"):
        maker(asked("a", data=b"something"))
    with pytest.raises(SkippedRecord, match="nothing to train in 9 tokens"):
        ExampleMaker(template, PictureReader(8), context=9)(asked("a"))


def test_a_maker_without_a_reader(template: ChatTemplate) -> None:
    with pytest.raises(ValueError, match="seen pictures: no reader and no cache"):
        ExampleMaker(template)(asked("a"))


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_pictures_and_cut_records_in_a_stream(
    tmp_path: Path, maker: ExampleMaker, tokenizer: TextTokenizer, workers: int
) -> None:
    records = [asked("r0"), asked("r1", data=b"rubbish"), asked("r2"), asked("r3", question="Why? " * 40)]
    write_source(records, tmp_path / "s", split="train")
    mixture = Mixture({"s": ShardDataset(tmp_path / "s")}, maker)
    sampler = MixtureBatchSampler(MixtureSpec(mixture.sizes, {"s": 1.0}, batch_size=4), steps=3)
    loader = DataLoader(mixture, batch_sampler=sampler, collate_fn=Collator(tokenizer.pad_id), num_workers=workers)
    for batch in loader:
        # r1 cannot be decoded; r3 keeps nothing to train; the next good ones stand in for them: r2 and r0
        assert sorted(record.id for record in batch["rows"].records) == ["r0", "r0", "r2", "r2"]
        assert batch["skipped"] == 2 and batch["cut"] == 0


def test_cut_records_are_counted(template: ChatTemplate, tokenizer: TextTokenizer) -> None:
    record = Record("c", "t", asked("x").turns + asked("y").turns)
    whole = len(template.render(record).ids)
    maker = ExampleMaker(template, PictureReader(8), context=whole - 1)
    examples: list[Example] = [maker(record), maker(asked("a"))]
    assert collate(examples, tokenizer.pad_id)["cut"] == 1
    assert len(examples[0].seen) == 1


@pytest.mark.parametrize("counts", [[3, 5], [1, 1, 4, 1, 7], [1, 1]])
def test_choices_are_those_of_the_randomness_made_at_once(counts: list[int]) -> None:
    at_once = random.Random(int.from_bytes(hashlib.sha256(b"0:r:2").digest()[:8], "big"))
    choose = _Chooser("0:r:2")
    assert [choose(count) for count in counts] == [at_once.randrange(count) for count in counts]
