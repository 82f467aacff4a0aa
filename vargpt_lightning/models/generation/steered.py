"""Drawings with parts of a sampler: the loop over the scales, with the parts' hooks around and inside each scale.

Without parts `models.generation.drawing` draws; parts at their neutral settings draw the same, bit by bit.

Legend: R rows that draw, or their candidates, L visual tokens of all scales, l tokens of one scale, V codebook, C code
size, H and W the side of the finest scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.models.decoder.sampling import Drawing, SamplingSettings
from vargpt_lightning.models.generation.drawing import PictureStep
from vargpt_lightning.models.generation.row_sampling import RowRules
from vargpt_lightning.models.generation.rows import stream
from vargpt_lightning.models.generation.sources import NoSources
from vargpt_lightning.models.images import to_images
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts import check_parts, made_of
from vargpt_lightning.models.parts.base import Drawing as Begun
from vargpt_lightning.models.parts.base import Hooks, Part, Scale, Sources
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError

OtherStep = Callable[[str, Sequence[int]], PictureStep]
"""(another model, the row of each candidate) -> its step, which has read the rows' contexts."""


@dataclass(frozen=True)
class Context:
    """What the rows that draw have before their pictures, and what parts may ask for.

    Attributes:
        gaps: as for `PictureStep`.
        requests: what each row was asked for.
        others: opens another model's step.
        images: as for the parts' `Drawing`.
    """

    gaps: Sequence[int] | None = None
    requests: Sequence[str] = ()
    others: OtherStep | None = None
    sources: Sources = field(default_factory=NoSources)
    images: Callable[[Tensor], list[Any]] = to_images


@dataclass(frozen=True)
class Steered:
    """A drawing, what an installed package's sampler has raised by row, and the picture tokens that the cache holds."""

    drawing: Drawing
    failed: dict[int, Exception]
    filled: int


@torch.no_grad()
def draw_steered(
    model: VARGPTModel,
    cache: LanguageCache,
    rows: Sequence[int],
    lengths: Sequence[int],
    settings: SamplingSettings,
    streams: Sequence[torch.Generator],
    context: Context | None = None,
    on_scale: Callable[[int, Tensor], None] | None = None,
    keep_logits: bool = False,
    on_step: Callable[[PictureStep], None] | None = None,
) -> Steered:
    """Draw one picture in each of some rows of a cache with the parts of the settings.

    `on_step` is given what draws before it begins.

    Logits of scales that were left out are zeros, their codes the ones that add least to a picture.

    Raises:
        UserError: a part does not fit the model, or cannot get what it needs.
    """
    context = Context() if context is None else context
    parts = made_of(settings.parts)
    check_parts(settings.parts, model.facts(settings))
    times = prod(part.candidates for part in parts)
    owners = [r for r in range(len(rows)) for _ in range(times)]
    own, places = cache, list(rows)
    if times > 1:
        own = cache.regrouped([rows[r] for r in owners], 0, cache.capacity)
        places = list(range(len(owners)))
    gaps = None if context.gaps is None else [context.gaps[r] for r in owners]
    all_streams = _streams(streams, times)
    step = PictureStep(model, own, places, [lengths[r] for r in owners], settings, all_streams, gaps=gaps)
    if on_step is not None:
        on_step(step)
    loop = _Loop(model, step, settings, all_streams, owners)
    loop.begin(parts, context)
    drawing, failed = loop.run(on_scale, keep_logits)
    if times > 1:
        for r, row in enumerate(rows):
            cache.put(row, step.cache, step.rows[r])
    return Steered(drawing, failed, step.filled)


class _Loop:
    """One drawing: its rows, their caches, and the hooks of its parts."""

    def __init__(
        self,
        model: VARGPTModel,
        step: PictureStep,
        settings: SamplingSettings,
        streams: Sequence[torch.Generator],
        owners: Sequence[int],
    ) -> None:
        self.model, self.step, self.settings = model, step, settings
        self.streams, self.owners = list(streams), list(owners)
        self.tokenizer, self.K = model.image_tokenizer, model.schedule.num_scales
        self.rules = RowRules([settings] * len(self.streams), self.streams)
        self.hooks: list[Hooks] = []
        self.second = bool(step.halves)
        self.f_hat_RCHW = self.tokenizer.empty_f_hat(len(self.streams))
        self.input_RlC: Tensor | None = None
        self.idx: list[Tensor] = []
        self.kept: list[Tensor] = []

    def begin(self, parts: Sequence[Part], context: Context) -> None:
        """Let the parts prepare."""

        def others(where: str) -> PictureStep:
            if context.others is None:
                context.sources.model(where)
                raise ValueError(f"{where}: no contexts were given that another model could read")
            return context.others(where, self.owners)

        begun = Begun(
            self.model.facts(self.settings),
            self.tokenizer,
            self.step,
            self.streams,
            [context.requests[r] for r in self.owners] if context.requests else [],
            others,
            context.sources,
            context.images,
        )
        inside = []
        for part in parts:
            hooks = part.begin(begun)
            self.hooks.append(hooks)
            if part.inside and type(hooks) is not Hooks:
                inside.append(hooks)
        if inside:
            self.step.hook_inside(inside)

    def run(
        self, on_scale: Callable[[int, Tensor], None] | None, keep_logits: bool
    ) -> tuple[Drawing, dict[int, Exception]]:
        """Draw all scales; arguments as for `next_scale_loop`."""
        for k in range(self.K):
            scale = Scale(k, self.input_RlC, self.rules.weights(k, self.K), self.second, self.step)
            for hooks in self.hooks:
                hooks.before_scale(scale)
            self.second = scale.second
            if scale.skipped:
                self._skip(k, keep_logits)
            else:
                self._draw(scale, keep_logits)
            for hooks in self.hooks:
                if (rows := hooks.after_scale(scale, self.f_hat_RCHW)) is not None:
                    self._regroup(rows)
            if on_scale is not None:
                first = [self.owners.index(r) for r in sorted(set(self.owners))]
                on_scale(k, self.f_hat_RCHW if len(first) == len(self.owners) else self.f_hat_RCHW[first])
        logits_RLV = torch.cat(self.kept, dim=1) if keep_logits else None
        return Drawing(torch.cat(self.idx, dim=1), self.f_hat_RCHW, logits_RLV), self.rules.failed

    def _draw(self, scale: Scale, keep_logits: bool) -> None:
        second = scale.second and scale.against is None
        cond_RlV, second_GlV = scale.step.logits(scale.k, scale.input_RlC, second)
        if scale.against is not None:
            second_GlV, _ = scale.against.logits(scale.k, scale.input_RlC, False)
        if second_GlV is None:
            logits_RlV = cond_RlV.float()
        else:
            logits_RlV = self.rules.guide(cond_RlV, second_GlV, scale.k, self.K, scale.weights)
        for hooks in self.hooks:
            logits_RlV = hooks.logits(scale, cond_RlV, second_GlV, logits_RlV)
        if keep_logits:
            self.kept.append(logits_RlV)
        codes_RlC, idx_Rl = self.rules.draw(logits_RlV, self.tokenizer, scale.k, self.K)
        self.idx.append(idx_Rl)
        self.f_hat_RCHW, self.input_RlC = self.tokenizer.accumulate(scale.k, self.f_hat_RCHW, codes_RlC)

    def _skip(self, k: int, keep_logits: bool) -> None:
        if self.tokenizer.numbers is not None:
            raise UserError("parts: one leaves scales out, which no bits stand for; expected none for a model in bits")
        every_V = torch.arange(self.tokenizer.vocabulary, device=self.f_hat_RCHW.device)
        least = self.tokenizer.embed_codes(every_V).float().square().sum(dim=-1).argmin()
        span = self.model.schedule.slices[k]
        shape = (len(self.owners), span.stop - span.start)
        self.idx.append(least.expand(shape))
        if keep_logits:
            self.kept.append(self.f_hat_RCHW.new_zeros(*shape, len(every_V), dtype=torch.float32))

    def _regroup(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, by their places."""
        if list(rows) == list(range(len(self.owners))):
            return
        places = list(rows)
        self.step.regroup(places)
        for hooks in self.hooks:
            hooks.regroup(places)
        failed = {new: self.rules.failed[old] for new, old in enumerate(places) if old in self.rules.failed}
        self.streams, self.owners = [self.streams[r] for r in places], [self.owners[r] for r in places]
        self.rules = RowRules([self.settings] * len(places), self.streams)
        self.rules.failed = failed
        self.f_hat_RCHW = self.f_hat_RCHW[places]
        self.input_RlC = None if self.input_RlC is None else self.input_RlC[places]
        self.idx = [idx_Rl[places] for idx_Rl in self.idx]
        self.kept = [logits_RlV[places] for logits_RlV in self.kept]


def _streams(streams: Sequence[torch.Generator], times: int) -> list[torch.Generator]:
    """The rows' own streams, and behind each `times` - 1 of its own, for its other candidates."""
    found = []
    for own in streams:
        found.append(own)
        found += [stream(own.initial_seed(), number) for number in range(1, times)]
    return found
