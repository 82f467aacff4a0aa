"""Rows of unequal settings against the one settings' sampling, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import IDS, bit_tokenizer, small_model
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import SamplingSettings, filter_logits, sample_indices
from vargpt_lightning.models.generation.drawing import draw_pictures, draw_rows
from vargpt_lightning.models.generation.row_sampling import RowRules, filter_rows, sample_rows
from vargpt_lightning.models.language.kv_cache import LanguageCache

UNEQUAL = [
    SamplingSettings(),
    SamplingSettings(top_k=3, temperature=0.3),
    SamplingSettings(cfg=0.0, top_k=0, top_p=0.6),
    SamplingSettings(top_k=7, top_p=0.0, cfg=4.0, cfg_schedule="constant"),
    SamplingSettings(smooth=True, cfg=2.0, top_k=9),
    SamplingSettings(greedy=True, cfg=3.0),
    SamplingSettings(cfg=0.0, temperature=1.7, top_k=0, top_p=1.0),
]


def streams(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(40 + row) for row in range(count)]


def random_logits(rows: int, length: int, vocabulary: int, seed: int = 0) -> Tensor:
    """With ties, which filters must treat alike."""
    wide = torch.randn(rows, length, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    wide[..., ::3] = wide[..., ::3].round()
    return wide


FILTERS = [(0, 0.0), (1, 0.0), (5, 0.0), (5, 0.9), (900, 0.95), (0, 0.3), (64, 1.0), (40, 0.999), (0, 1e-6)]


def test_filters_of_rows_are_those_of_one() -> None:
    logits = random_logits(len(FILTERS), 11, 64)
    together = filter_rows(logits, *zip(*FILTERS, strict=True))
    for r, (top_k, top_p) in enumerate(FILTERS):
        assert torch.equal(together[r], filter_logits(logits[r : r + 1], top_k, top_p)[0])
    assert len({int(row.isfinite().sum()) for row in together}) > 5


@pytest.mark.parametrize("shape", [(1, 1, 16), (3, 1, 300), (4, 64, 512), (2, 25, 4096)])
def test_rows_draw_the_codes_that_multinomial_draws(shape: tuple[int, int, int]) -> None:
    filtered = filter_logits(random_logits(*shape), top_k=shape[-1] // 2, top_p=0.95)
    mine, theirs = streams(len(filtered)), streams(len(filtered))
    for _ in range(3):
        assert torch.equal(sample_rows(filtered, mine), sample_indices(filtered, theirs))
    assert all(torch.equal(one.get_state(), other.get_state()) for one, other in zip(mine, theirs, strict=True))


def test_what_is_no_number_is_refused() -> None:
    logits = random_logits(2, 3, 8)
    logits[1, 2, 5] = torch.nan
    with pytest.raises(ValueError, match="no numbers"):
        sample_rows(logits, streams(2))


def test_guidance_of_rows_is_that_of_one() -> None:
    from vargpt_lightning.models.decoder.sampling import guidance_weight, guided_logits

    cond, uncond = random_logits(len(UNEQUAL), 4, 32), random_logits(len(UNEQUAL), 4, 32, seed=1)
    rules = RowRules(UNEQUAL, streams(len(UNEQUAL)))
    for k in range(4):
        together = rules.guide(cond, uncond[rules.guided], k, 4)
        for r, settings in enumerate(UNEQUAL):
            other = uncond[r] if settings.guided else None
            assert torch.equal(together[r], guided_logits(cond[r], other, guidance_weight(settings, k, 4)))


@pytest.mark.parametrize(
    "changes", [{"unconditional": "dropped_prompt"}, {"unconditional": "noise"}, {"tokenizer": bit_tokenizer()}]
)
def test_rows_of_unequal_settings_draw_what_each_draws_alone(changes: dict[str, Any]) -> None:
    """Against `draw_pictures` with one settings, prompts of unequal length, features of the picture included."""
    model = small_model(8, **changes)
    contexts = [[IDS.bos, *range(5, 6 + row)] for row in range(len(UNEQUAL))]

    def read(rows: list[list[int]]) -> LanguageCache:
        cache = LanguageCache(model.language_model, len(rows), 60)
        for r, ids in enumerate(rows):
            slots = torch.arange(len(ids))[None]
            with torch.no_grad():
                embeds = model.language_model.model.embed_tokens(torch.tensor([ids]))
                cache.run(embeds, slots, step_mask(slots, len(ids)), rows=[r])
        return cache

    lengths, count = [len(ids) for ids in contexts], len(contexts)
    drawing, failed = draw_rows(model, read(contexts), range(count), lengths, UNEQUAL, streams(count))
    assert not failed and len({tuple(codes.flatten().tolist()) for codes in drawing.idx_BL}) == count
    for r, settings in enumerate(UNEQUAL):
        alone = draw_pictures(model, read([contexts[r]]), [0], [lengths[r]], settings, [streams(count)[r]])
        assert torch.equal(alone.idx_BL[0], drawing.idx_BL[r]), settings
        torch.testing.assert_close(alone.f_hat_BCHW[0], drawing.f_hat_BCHW[r], rtol=0, atol=1e-3)  # `smooth` is steep
