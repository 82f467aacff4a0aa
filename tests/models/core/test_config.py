"""Sizes and settings: presets, overrides, and what is said about a wrong value."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.cases import golden_config
from vargpt_lightning.models.core.config import (
    PRESETS,
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    VARGPTConfig,
    VisionConfig,
    full_size,
)
from vargpt_lightning.utils.errors import UserError


def test_presets_are_the_table_of_differences() -> None:
    table = {
        "visual_attention": ("block_causal", "causal"),
        "unconditional": ("dropped_prompt", "noise"),
        "prompt_dropout": (0.1, 0.0),
        "text_loss": ("answer", "all"),
        "top_p": (0.95, 0.96),
        "after_image": ("continue", "stop"),
        "class_row": ("null", "start_token"),
    }
    for name, values in table.items():
        assert (getattr(PRESETS["paper"], name), getattr(PRESETS["official"], name)) == values


def test_a_setting_of_its_own_wins_over_the_preset() -> None:
    config = golden_config(preset="official", visual_attention="block_causal", prompt_dropout=0.0, top_p=0.5)
    assert config.settings.visual_attention == "block_causal"
    assert config.settings.top_p == 0.5
    assert config.settings.unconditional == "noise"
    assert golden_config(preset="paper", prompt_dropout=0.0).settings.prompt_dropout == 0.0


def test_configuration_survives_plain_values() -> None:
    config = golden_config(text_loss="answer")
    values = config.to_dict()
    values["tokenizer"]["scales"] = list(values["tokenizer"]["scales"])  # As YAML and JSON give it back.
    assert VARGPTConfig.from_dict(values) == config


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"languge": {}}, "languge"),
        ({"language": {"widht": 8}}, r"language\.widht"),
        ({"preset": "papers"}, "preset: got 'papers', expected one of paper, official"),
    ],
)
def test_unknown_keys_are_named(values: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        VARGPTConfig.from_dict(values)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: LanguageConfig(width=30, heads=4), r"language\.heads: got 4, expected a divisor of the width 30"),
        (lambda: LanguageConfig(heads=4, kv_heads=3), r"language\.kv_heads"),
        (lambda: LanguageConfig(layers=0), r"language\.layers"),
        (lambda: VisionConfig(kind="dino"), r"vision\.kind"),  # type: ignore[arg-type]
        (lambda: VisionConfig(feature="pool"), r"vision\.feature"),  # type: ignore[arg-type]
        (lambda: VisionConfig(picture_size=100), r"vision\.picture_size: got 100, expected a positive multiple of 32"),
        (lambda: VARGPTConfig(language=LanguageConfig(vocabulary=100)), r"tokens\.pad: got 32001"),
        (lambda: VARGPTConfig(tokens=TokenIds(image=7, image_gen=7)), "four different ids"),
        (lambda: VARGPTConfig(prompt_dropout=1.5), "prompt_dropout=1.5; expected a number from 0 to 1"),
        (lambda: VARGPTConfig(visual_attention="full"), "visual_attention"),  # type: ignore[arg-type]
        (lambda: VARGPTConfig(class_row="start_token"), r"decoder\.classes: got 1000, expected more classes"),
    ],
)
def test_wrong_values_are_named(build: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        build()


def test_start_token_row_fits_enough_classes() -> None:
    VARGPTConfig(class_row="start_token", decoder=DecoderConfig(classes=32003))


def test_full_size_sees_576_patches_and_draws_680_tokens() -> None:
    config = full_size("paper")
    assert (config.vision.patches, config.vision.channels) == (576, 1024)
    assert config.tokenizer.schedule.num_tokens == 680
    assert config.language.mlp_width == 11008 and LanguageConfig(width=256).mlp_width == 704
