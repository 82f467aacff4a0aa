"""Drawings with and without parts, that the tests of parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tests.models.cases import IDS, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import Drawing, SamplingSettings
from vargpt_lightning.models.generation.drawing import PictureStep, draw_rows
from vargpt_lightning.models.generation.steered import Context, Steered, draw_steered
from vargpt_lightning.models.language.kv_cache import LanguageCache

PROMPT = [IDS.bos, 5, 6, 7]
SEEDS = (3, 4)


class Others:
    """Sources with other models by their names, scorers, and texts whose ids are their letters."""

    def __init__(self, **found: Any) -> None:
        self.found = found

    def prompt_ids(self, text: str) -> list[int]:
        return [IDS.bos, *(10 + ord(letter) % 50 for letter in text)]

    def model(self, where: str) -> Any:
        return self.found[where]

    def scorer(self, name: str) -> Any:
        return self.found[name]


def read(model: VARGPT, rows: int, ids: Sequence[int] = PROMPT) -> LanguageCache:
    """A cache whose rows have read a prompt."""
    cache = LanguageCache(model.language_model, rows, len(ids) + 60)
    slots = torch.arange(len(ids)).expand(rows, -1)
    with torch.no_grad():
        cache.run(model.language_model.embed(torch.tensor(ids).expand(rows, -1)), slots, step_mask(slots, len(ids)))
    return cache


def streams(seeds: Sequence[int] = SEEDS) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def plain(model: VARGPT, seeds: Sequence[int] = SEEDS, **settings: Any) -> Drawing:
    """What is drawn without parts."""
    rows, own = list(range(len(seeds))), SamplingSettings(**settings)
    cache = read(model, len(seeds))
    with torch.no_grad():
        return draw_rows(
            model, cache, rows, [len(PROMPT)] * len(seeds), [own] * len(seeds), streams(seeds), None, True
        )[0]


def steered(
    model: VARGPT,
    parts: Mapping[str, Any],
    seeds: Sequence[int] = SEEDS,
    sources: Others | None = None,
    cache: LanguageCache | None = None,
    **settings: Any,
) -> Steered:
    """What is drawn with parts."""
    rows, own = list(range(len(seeds))), SamplingSettings(parts=parts, **settings)
    sources = sources or Others()

    def others(where: str, owners: Sequence[int]) -> PictureStep:
        other = sources.model(where)
        lengths = [len(PROMPT)] * len(owners)
        return PictureStep(other, read(other, len(owners)), range(len(owners)), lengths, own, streams(seeds))

    context = Context(requests=["a request"] * len(seeds), others=others, sources=sources)
    cache = read(model, len(seeds)) if cache is None else cache
    lengths = [len(PROMPT)] * len(seeds)
    return draw_steered(model, cache, rows, lengths, own, streams(seeds), context, None, True)


def assert_same(steered: Steered, plain: Drawing) -> None:
    """Fail unless codes, features and logits are equal bit by bit."""
    assert torch.equal(steered.drawing.idx_BL, plain.idx_BL)
    assert torch.equal(steered.drawing.f_hat_BCHW, plain.f_hat_BCHW)
    assert steered.drawing.logits_BLV is not None and plain.logits_BLV is not None
    assert torch.equal(steered.drawing.logits_BLV, plain.logits_BLV)


def tiny() -> VARGPT:
    """A model of four scales, 1, 2, 3 and 4."""
    return small_model()
