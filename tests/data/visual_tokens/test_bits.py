"""Visual tokens that are bits: kept in words, and given back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.conftest import drawn, png
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.visual_tokens.bits import packed, unpacked, words_of
from vargpt_lightning.data.visual_tokens.codes import Recipe, VisualTokens
from vargpt_lightning.data.visual_tokens.job import tokenize
from vargpt_lightning.utils.errors import UserError

L, D = 5, 20
READER = PictureReader(8)
RECIPE = Recipe.of({"w": torch.ones(2)}, {"scales": (1, 2), "bits": D, "entropy_weight": 0.1}, READER)


def encode(x_B3HW: Tensor) -> Tensor:
    return (x_B3HW.flatten(1)[:, : L * D] * 100).long().remainder(2).view(-1, L, D)


@pytest.mark.parametrize("bits", [1, 5, 16, 17, 32, 56, 64])
def test_bits_come_back_from_their_words(bits: int) -> None:
    bits_VLD = np.random.default_rng(0).integers(0, 2, (3, 7, bits))
    words_VW = packed(bits_VLD)
    assert words_VW.dtype == np.uint16 and words_VW.shape == (3, 7 * words_of(bits))
    assert np.array_equal(unpacked(words_VW, bits), bits_VLD)
    assert unpacked(words_VW[:0], bits).shape == (0, 7, bits)


def test_the_first_bit_is_the_lowest() -> None:
    bits_VLD = np.zeros((1, 1, 20), np.int64)
    bits_VLD[0, 0, [0, 3, 17]] = 1
    assert packed(bits_VLD).tolist() == [[0b1001, 0b10]]


def test_a_folder_s_bits_are_kept_and_read(tmp_path: Path) -> None:
    made = [Record(f"r{n}", "t", drawn(f"p{n}", png(size=16 + n) if n != 1 else b"none").turns) for n in range(4)]
    write_source(made, tmp_path / "packed", split="train")
    dataset = ShardDataset(tmp_path / "packed")
    out = tokenize(dataset, tmp_path / "tokens", RECIPE, READER, encode, tokens=L, bits=D)
    found = VisualTokens(out)
    assert found.bits == D and found.codes.shape == (3, L * 2)
    coded = dataset.with_codes(found)
    for number, (plain, record) in enumerate(zip(dataset, coded, strict=True)):
        (part,), (picture,) = record.pictures(), plain.pictures()
        if number == 1:
            assert part.codes.shape == (0, L, D)
        else:
            expected_1LD = encode(READER.read(picture.data, picture.name, 0)[None])
            assert torch.equal(torch.from_numpy(part.codes.astype(np.int64)), expected_1LD)
    index = json.loads((out / "index.json").read_text())
    assert index["bits"] == D and index["tokens"] == L
    (out / "index.json").write_text(json.dumps(index | {"bits": 40}))
    with pytest.raises(UserError, match=r"codes\.npy: shape \(3, 10\), index\.json says \(3, 15\)"):
        VisualTokens(out)


def test_weights_of_losses_change_no_codes() -> None:
    other = Recipe.of({"w": torch.ones(2)}, {"scales": (1, 2), "bits": D, "entropy_weight": 9.0}, READER)
    assert other.name == RECIPE.name
