"""Pictures of answers: rows that draw together, their drawings, and what is passed on while they are made.

Legend: R rows, Q drawn pictures, L visual tokens of all scales, V codebook, C, H and W of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vargpt_lightning.models.decoder.sampling import Drawing, SamplingSettings
from vargpt_lightning.models.generation.answers import PicturePart, Prompt, Watcher, to_images
from vargpt_lightning.models.generation.drawing import PictureStep, draw_rows
from vargpt_lightning.models.generation.reading import drawn_of, pictures_of, read_contexts
from vargpt_lightning.models.generation.rows import NobodyWaitsError, Row
from vargpt_lightning.models.generation.steered import Context, OtherStep, draw_steered
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts.base import Sources
from vargpt_lightning.models.vargpt import VARGPTModel


@dataclass(frozen=True)
class Drawn:
    """The pictures of rows, None for those that failed and why, and the tokens of a picture that the cache holds."""

    parts: list[PicturePart | None]
    failed: dict[int, Exception]
    filled: int


def drawn_together(rows: Sequence[Row]) -> list[list[Row]]:
    """Return rows in groups of one size: all without parts of a sampler, and those with the same settings."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=_steered):
        size, visual = row.settings.size, row.settings.visual
        same = [
            group
            for group in groups
            if group[0].settings.size == size and _steered(group[0]) == _steered(row)
            if not _steered(row) or group[0].settings.visual == visual
        ]
        same[0].append(row) if same else groups.append([row])
    return groups


def _steered(row: Row) -> bool:
    """Whether a row draws with parts of a sampler."""
    return bool(row.settings.visual and row.settings.visual.parts)


def draw_for(
    model: VARGPTModel, cache: LanguageCache, rows: Sequence[Row], watcher: Watcher | None, sources: Sources
) -> Drawn:
    """Draw one picture in each of some rows that draw together.

    Raises:
        NobodyWaitsError: all of them are gone.
    """
    drawing, failed, filled = _drawing(model, cache, rows, watcher, sources)
    tokenizer = model.image_tokenizer
    images = to_images(tokenizer.decode(drawing.f_hat_BCHW))
    keeping = [r for r, row in enumerate(rows) if row.settings.keep_scales]
    scales = [to_images(x) for x in tokenizer.progressive(drawing.idx_BL[keeping])] if keeping else []
    parts: list[PicturePart | None] = []
    for r, row in enumerate(rows):
        own_scales = tuple(pictures[keeping.index(r)] for pictures in scales) if r in keeping else ()
        logits_LV = None
        if row.settings.keep_logits and drawing.logits_BLV is not None:
            logits_LV = drawing.logits_BLV[r].cpu()
        made = PicturePart(images[r], drawing.idx_BL[r].cpu(), own_scales, logits_LV, model.size)
        parts.append(None if r in failed else made)
    return Drawn(parts, failed, filled)


def _drawing(
    model: VARGPTModel, cache: LanguageCache, rows: Sequence[Row], watcher: Watcher | None, sources: Sources
) -> tuple[Drawing, dict[int, Exception], int]:
    settings = [row.settings.visual or model.sampling_settings() for row in rows]
    slots, lengths, gaps = ([getattr(row, key) for row in rows] for key in ("slot", "length", "ahead"))
    streams = [row.generator for row in rows]
    on_scale = _telling(model, rows, watcher) if watcher is not None else None
    logits = any(row.settings.keep_logits for row in rows)
    if not settings[0].parts:
        drawing, failed = draw_rows(model, cache, slots, lengths, settings, streams, on_scale, logits, gaps)
        return drawing, failed, model.schedule.num_tokens
    others = _others(rows, settings[0], streams, sources, model.size)
    context = Context(gaps, [row.prompt.request for row in rows], others, sources)
    found = draw_steered(model, cache, slots, lengths, settings[0], streams, context, on_scale, logits)
    return found.drawing, found.failed, found.filled


def _others(
    rows: Sequence[Row], settings: SamplingSettings, streams: Sequence[torch.Generator], sources: Sources, size: int
) -> OtherStep:
    """What opens another model's step, which has read what the rows have so far."""

    def opened(where: str, owners: Sequence[int]) -> PictureStep:
        model = sources.model(where).at(size)
        contexts = [row.sequence for row in rows]
        longest = max(map(len, contexts))
        cache = model.language_cache(len(rows), longest + model.schedule.num_tokens + 1)
        prompts = [_so_far(model, row) for row in rows]
        leads = read_contexts(model, cache, list(range(len(rows))), contexts, pictures_of(model, prompts)).leads
        if len(owners) != len(rows):
            cache = cache.regrouped(list(owners), 0, cache.capacity)
        lengths = [len(contexts[r]) for r in owners]
        own, ahead = [streams[r] for r in owners], [leads[r] for r in owners]
        return PictureStep(model, cache, range(len(owners)), lengths, settings, own, gaps=ahead)

    return opened


def _so_far(model: VARGPTModel, row: Row) -> Prompt:
    """A row's prompt, with the pictures that the answer has drawn behind those that it came with."""
    before, own = drawn_of(model, row.prompt), row.answer.pictures
    return replace(
        row.prompt,
        drawn_indices=[*(codes for _, codes in before), *(picture.indices for picture in own)] or None,
        drawn_pixels=None,
        drawn_sizes=[*(size for size, _ in before), *(picture.size for picture in own)],
    )


def _telling(model: VARGPTModel, rows: Sequence[Row], watcher: Watcher) -> Callable[[int, Tensor], None]:
    """What passes the pictures after each scale on to the watcher, and ends a drawing that nobody waits for."""

    def tell(k: int, f_hat_RCHW: Tensor) -> None:
        here = [r for r, row in enumerate(rows) if not watcher.gone(row.place)]
        if not here:
            raise NobodyWaitsError
        if wanted := [r for r in here if watcher.wants_scales(rows[r].place)]:
            images = to_images(model.image_tokenizer.decode(f_hat_RCHW[wanted]))
            for r, image in zip(wanted, images, strict=True):
                watcher.scale(rows[r].place, k, image)

    return tell
