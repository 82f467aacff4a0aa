"""Models and batches that the tests of the assembly share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.golden import LLM_RULES, VAR_RULES, fill, fill_tokenizer, load_golden
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.models.core.masks import find_pictures

IDS = TokenIds(bos=1, eos=2, pad=101, image=100, image_gen_start=102, image_gen_end=103, image_gen=104)
SEEN = [IDS.image] * 4
"""Placeholders of one seen picture (2 x 2 patches)."""
DRAWN = [IDS.image_gen_start, *[IDS.image_gen] * 30, IDS.image_gen_end]
"""One drawn picture: scales 1, 2, 3, 4 have 30 tokens."""
SCALE_OF = [0] * 1 + [1] * 4 + [2] * 9 + [3] * 16
"""The scale of each of its tokens."""


def golden_config(**changes: Any) -> VARGPTConfig:
    """The configuration of the golden VARGPT, drop-path and class dropout off."""
    config = VARGPTConfig(
        language=LanguageConfig(width=64, layers=2, heads=4, mlp=128, vocabulary=128, max_positions=4096),
        vision=VisionConfig(kind="clip", picture_size=28, patch_size=14, width=32, layers=3, heads=2, mlp=64),
        tokenizer=TokenizerConfig(scales=(1, 2, 3, 4), channels=32, code_size=8, vocabulary=64),
        decoder=DecoderConfig(depth=2, classes=103, drop_path=0.0, class_dropout=0.0),
        tokens=IDS,
        preset="official",
        unused_layer_norm=True,
    )
    return replace(config, **changes)


def golden_model(**changes: Any) -> VARGPT:
    """The golden VARGPT with its weights, loaded through the published names."""
    gold = load_golden("a3_vargpt_tiny_state")
    model = VARGPT(golden_config(**changes))
    assert fill_tokenizer(model.image_tokenizer) == gold.meta["weights"]["vae_sha256"]
    tokenizer = {f"vae_local.{key}": value for key, value in model.image_tokenizer.state_dict().items()}
    layouts.load(model, layouts.from_official({**gold.under("sd."), **tokenizer}, "vargpt").state)
    return model.eval()


def small_model(seed: int = 0, **changes: Any) -> VARGPT:
    """A small VARGPT, preset `paper`, whose pictures are 16 px; its weights follow from the seed and their names."""
    config = VARGPTConfig(
        language=LanguageConfig(width=32, layers=2, heads=4, kv_heads=2, mlp=64, vocabulary=112, max_positions=512),
        vision=VisionConfig(kind="clip", picture_size=28, patch_size=14, width=16, layers=2, heads=2, mlp=32),
        tokenizer=TokenizerConfig(
            scales=(1, 2, 3, 4),
            channels=8,
            channel_multipliers=(1, 1, 2),
            residual_blocks=1,
            code_size=8,
            vocabulary=48,
        ),
        decoder=DecoderConfig(depth=2, width=32, heads=4, classes=103, drop_path=0.0, class_dropout=0.0),
        tokens=IDS,
    )
    model = VARGPT(replace(config, **changes))
    # Filled from names, so that a test's expectations do not hang on torch's random streams.
    fill(model, seed, [*VAR_RULES, *LLM_RULES])
    return model.eval()


def bit_tokenizer() -> TokenizerConfig:
    """The tokenizer of `small_model` with 6 bits a token in place of indices."""
    return TokenizerConfig(
        kind="bits", scales=(1, 2, 3, 4), channels=8, channel_multipliers=(1, 1, 2), residual_blocks=1, code_size=6
    )


def make_batch(rows: list[list[int]], prompt_length: int = 3) -> dict[str, Tensor]:
    """Right-padded ids, mask and labels; everything from `prompt_length` on but pictures is trained."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), IDS.pad)
    valid = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        valid[i, : len(row)] = True
    labels = ids.masked_fill(~valid | (ids == IDS.image) | (ids == IDS.image_gen), -100)
    labels[:, :prompt_length] = -100
    return {"input_ids": ids, "attention_mask": valid, "labels": labels}


def random_codes(count: int, seed: int = 1, vocabulary: int = 48) -> Tensor:
    """Codes (count, 30) of drawn pictures."""
    return torch.randint(vocabulary, (count, 30), generator=torch.Generator().manual_seed(seed))


def random_features(count: int, seed: int = 2, channels: int = 16) -> Tensor:
    """Vision features (count, 4, channels) of seen pictures."""
    return torch.randn(count, 4, channels, generator=torch.Generator().manual_seed(seed))


def moved_positions(model: VARGPT, row: list[int], position: int, *, training: bool = False) -> set[int]:
    """Where the language model's last hidden states change when the input at `position` does."""
    batch = make_batch([row])
    count = row.count(IDS.image_gen_start)
    model.train(training)
    drawn = model.drawn_pictures({"drawn_indices": random_codes(count)})
    layout = find_pictures(batch["input_ids"], IDS, 30)
    with torch.no_grad():
        mask = model.training_mask(batch, layout, drawn)
        embeds = model.embed({"input_ids": batch["input_ids"]}, layout, drawn)
        changed = embeds.clone()
        changed[0, position] += torch.linspace(0.0, 2.0, embeds.shape[-1])  # a layer norm takes one number away
        before, after = (model.language_model.model(x, mask) for x in (embeds, changed))
    model.eval()
    return set(((before - after).abs().amax(-1)[0] > 1e-6).nonzero().flatten().tolist())
