"""Sizes of the published models, read from nothing but the shapes of their weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tests.checkpoints.published.test_layouts import SCALES_512, published
from vargpt_lightning.checkpoints.published.infer_config import scales_of_levels, sizes_of
from vargpt_lightning.checkpoints.published.layouts import from_official
from vargpt_lightning.models.core.aspect_ratios import RATIOS
from vargpt_lightning.models.core.config import DecoderConfig, TokenizerConfig, VARGPTConfig, full_size
from vargpt_lightning.utils.errors import UserError


def sizes(name: str) -> dict[str, Any]:
    return sizes_of(from_official(published(name)[1]).state)


def test_the_full_model_is_known_by_its_shapes() -> None:
    found = {key: asdict(value) for key, value in sizes("vargpt_llava_v1_7b").items()}
    official = {"preset": "official", "unused_layer_norm": True}
    assert VARGPTConfig.from_dict({**found, **official}) == full_size("official")


@pytest.mark.parametrize("name", ["llava15_7b_tf446", "llava15_7b_tf523"])
def test_llava_is_the_understanding_half(name: str) -> None:
    full = full_size()
    assert sizes(name) == {"language": full.language, "vision": full.vision}


@pytest.mark.parametrize(
    ("name", "decoder", "scales"),
    [
        ("var_d8", DecoderConfig(depth=8), TokenizerConfig().scales),
        ("var_d16", DecoderConfig(depth=16), TokenizerConfig().scales),
        ("var_d30", DecoderConfig(depth=30), TokenizerConfig().scales),
        ("var_d36_shared_512", DecoderConfig(depth=36, shared_adaln=True), SCALES_512),
    ],
)
def test_var_is_known_by_its_shapes(name: str, decoder: DecoderConfig, scales: tuple[int, ...]) -> None:
    assert sizes(name) == {"decoder": decoder, "tokenizer": TokenizerConfig(scales=scales)}
    with pytest.raises(UserError, match=r"scales: \[1, 2\] make 5 tokens in 2 scales; the weights have"):
        sizes_of(from_official(published(name)[1]).state, scales=(1, 2))


def test_the_image_tokenizer_is_known_by_its_shapes() -> None:
    assert sizes("vqvae_ch160v4096z32") == {"tokenizer": TokenizerConfig()}


@pytest.mark.parametrize(
    ("name", "decoder", "tokenizer"),
    [
        (
            "infinity_2b",
            DecoderConfig(depth=32, heads=16, chunks=8),
            TokenizerConfig(kind="bits", scales=RATIOS[1.0].sizes, code_size=32),
        ),
        (
            "infinity_8b",
            DecoderConfig(depth=40, width=3584, heads=28, chunks=8, text_width=2048),
            TokenizerConfig(kind="bits", scales=RATIOS[1.0].sizes, code_size=14, patchify=True),
        ),
    ],
)
def test_infinity_is_known_by_its_shapes(name: str, decoder: DecoderConfig, tokenizer: TokenizerConfig) -> None:
    assert sizes(name) == {"decoder": decoder, "tokenizer": tokenizer}
    other = sizes_of(from_official(published(name)[1]).state, scales=(1, (2, 3)))
    assert other["tokenizer"].scales == (1, (2, 3))


def test_scales_follow_from_the_levels_of_tokens() -> None:
    assert scales_of_levels([0] + [1] * 4 + [2] * 9) == (1, 2, 3)
    for wrong in ([0, 1, 1], [1] * 4, [0] + [2] * 4 + [1] * 4, []):
        with pytest.raises(UserError, match="expected squares"):
            scales_of_levels(wrong)


def test_a_gap_in_the_layers_is_named() -> None:
    state = from_official(published("var_d16")[1]).state
    gap = {key: value for key, value in state.items() if not key.startswith("visual_decoder.blocks.7.")}
    with pytest.raises(UserError, match=r"visual_decoder\.blocks\.7\.\* are missing; there are numbers up to 15"):
        sizes_of(gap)
