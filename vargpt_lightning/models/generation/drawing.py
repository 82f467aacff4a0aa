"""Drawing pictures inside sequences: one pass a scale through language model and decoder, both with their caches.

Legend: R rows that draw, G those of them with guidance, n new tokens, L visual tokens of all scales, l tokens of one
scale, C width, W hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.conditions import joined
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.cache import DecoderCache
from vargpt_lightning.models.decoder.int8 import int8_copy
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
from vargpt_lightning.models.generation.row_sampling import RowRules
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts.base import Hooks
from vargpt_lightning.models.vargpt import VARGPTModel


class PictureStep:
    """The step of `next_scale_loop` for rows whose next token is the start token of a picture.

    The start token goes through the language model together with the first scale. Where guidance hides the prompt, a
    second, small cache holds the picture alone: the start token is computed again without its context, at the same
    positions (VARGPTModel trains this by prompt dropout).

    Args:
        model: in evaluation mode.
        cache: holds the context of the rows, `lengths` tokens each; the picture's tokens join it.
        rows: the rows of the cache that draw.
        settings: of all rows, or of each; a row without guidance has no half without the prompt.
        generator: source of the noise where the unconditional half is noise; one, or one for each row.
        noise_RLW: that noise itself, for all scales in a row, instead of drawing it.
        gaps: how much larger positions are than slots of the cache, of each row; of none by default.

    Attributes:
        filled: tokens of the picture that the cache holds behind the start token; -1 while this is not there either.
    """

    def __init__(
        self,
        model: VARGPTModel,
        cache: LanguageCache,
        rows: Sequence[int],
        lengths: Sequence[int],
        settings: SamplingSettings | Sequence[SamplingSettings],
        generator: Generators = None,
        noise_RLW: Tensor | None = None,
        gaps: Sequence[int] | None = None,
    ) -> None:
        self.model, self.cache, self.rows = model, cache, list(rows)
        self.decoder, self.filled = model.visual_decoder, -1
        self.generator, self.noise_RLW = generator, noise_RLW
        device = model.language_model.lm_head.weight.device
        self.lengths_R, self.longest = torch.tensor(list(lengths), device=device), max(lengths)
        self.gaps_R = torch.tensor(list(gaps), device=device) if gaps is not None and any(gaps) else None
        count, L = len(self.rows), model.schedule.num_tokens
        each = [settings] * count if isinstance(settings, SamplingSettings) else settings
        guided = [r for r, own in enumerate(each) if own.guided]
        self.guided = slice(None) if len(guided) == count else guided
        self.halves = len(guided)
        hides = guided and model.settings.unconditional in ("dropped_prompt", "present_scale")
        self.alone = LanguageCache(model.language_model, len(guided), L + 1) if hides else None
        self.read_before = 0  # tokens that the second half has read before its start token
        self.labels_R = torch.full((count,), model.null_class, device=device)
        self.condition = self._condition(guided)
        self.decoder_cache = model.visual_decoder.new_cache(count + len(guided))

    def __call__(self, k: int, input_RlC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return logits (R, l, V) of scale k with the prompt, and (G, l, V) without it where guidance is on."""
        embeds_RnW, others_GnW = self._embedded(k, input_RlC)
        hidden = [self._with_prompt(k, embeds_RnW)]
        if self.halves:
            hidden.append(self._without_prompt(k, others_GnW))
        x_RlC = self.model.generation_projector_out(torch.cat(hidden))
        logits_RlV = self.decoder.decode(x_RlC, self.condition, self.decoder_cache, k)
        self.filled = self.model.schedule.slices[k].stop
        count = len(self.rows)
        return logits_RlV[:count], logits_RlV[count:] if self.halves else None

    def logits(self, k: int, input_RlC: Tensor | None, second: bool) -> tuple[Tensor, Tensor | None]:
        """Return what a call does; without the second half from now on where it is not wanted."""
        if self.halves and not second:
            self.drop_second()
        return self(k, input_RlC)

    def probe(self, k: int, input_RlC: Tensor) -> Tensor:
        """Return logits (R, l, V) of scale k for another input than it then gets, which takes its place in the caches.

        Scale 0 has no input and cannot be asked so.
        """
        cache = self.decoder_cache.of(slice(len(self.rows)))
        x_RlC = self.model.generation_projector_out(self._with_prompt(k, self._embedded(k, input_RlC)[0]))
        return self.decoder.decode(x_RlC, self.condition.of(slice(len(self.rows))), cache, k)

    def drop_second(self) -> None:
        """Compute no second half from now on."""
        first = slice(len(self.rows))
        self.halves, self.alone = 0, None
        self.condition, self.decoder_cache = self.condition.of(first), self.decoder_cache.of(first)

    def read_second(self, ids: Sequence[int]) -> None:
        """Let the second half go on from these text tokens; before the first scale."""
        capacity = len(ids) + self.model.schedule.num_tokens + 1
        self.alone = self.model.language_cache(self.halves, capacity)
        ids_GT = torch.tensor(list(ids), device=self.lengths_R.device).expand(self.halves, -1)
        places_GT = torch.arange(len(ids), device=self.lengths_R.device).expand_as(ids_GT)
        self.alone.run(self.model.language_model.embed(ids_GT), places_GT, step_mask(places_GT, len(ids)))
        self.read_before = len(ids)
        conditions, count = self.model.conditions, len(self.rows)
        if self.alone.keeps:
            before = TextRows.of(list(self.alone.kept_BSC[:, : len(ids)]))
            other = conditions.heard(conditions.told(self.labels_R[: self.halves], before), before)
            self.condition = joined(self.condition.of(slice(count)), other)

    def second_values(self, k: int) -> list[Tensor]:
        """Return the decoder's cached values (G, H, l, D) of scale k in the second half, a view of each layer's."""
        span = self.model.schedule.slices[k]
        return [layer.values_BHLD[len(self.rows) :, :, span] for layer in self.decoder_cache.layers]

    def hook_inside(self, hooks: Sequence[Hooks]) -> None:
        """Let hooks choose what the decoder computes and keeps; before the first scale."""
        self.decoder_cache = DecoderCache.hooked(self.decoder.depth, hooks)

    def use_int8(self, blocks: int) -> None:
        """Let the first blocks of the decoder multiply with weights of 8 bits; before the first scale."""
        self.decoder = int8_copy(self.decoder, blocks)

    def regroup(self, rows: Sequence[int]) -> None:
        """Go on with these rows, by their places; all of them have guidance, or none has."""
        both = [*rows, *(len(self.rows) + row for row in rows if self.halves)]
        self.condition, self.decoder_cache = self.condition.of(both), self.decoder_cache.of(both)
        self.cache = self.cache.regrouped([self.rows[row] for row in rows], 0, self.cache.capacity)
        if self.alone is not None:
            self.alone = self.alone.regrouped(rows, 0, self.alone.capacity)
        if self.noise_RLW is not None:
            self.noise_RLW = self.noise_RLW[list(rows)]
        if not (self.generator is None or isinstance(self.generator, torch.Generator)):
            self.generator = [self.generator[row] for row in rows]
        self.lengths_R, self.labels_R = self.lengths_R[list(rows)], self.labels_R[list(rows)]
        self.gaps_R = None if self.gaps_R is None else self.gaps_R[list(rows)]
        self.rows, self.halves = list(range(len(rows))), len(rows) if self.halves else 0

    def _embedded(self, k: int, input_RlC: Tensor | None) -> tuple[Tensor, Tensor]:
        """The language model's inputs of scale k in both halves, with the start token before those of the first."""
        count, own_start = len(self.rows), self.model.conditions.reads_prompts
        words_RlC = self.decoder.embed_scale(k, self.condition if k == 0 and own_start else self.labels_R, input_RlC)
        embeds_RnW = self.model.generation_projector_in(words_RlC)
        if k == 0:
            start_R1W = self._start_embedding().to(embeds_RnW.dtype)
            embeds_RnW = torch.cat((start_R1W.expand(len(embeds_RnW), -1, -1), embeds_RnW), dim=1)
        if len(embeds_RnW) > count:
            return embeds_RnW[:count], embeds_RnW[count:]
        return embeds_RnW, embeds_RnW[self.guided] if self.halves else embeds_RnW[:0]

    def _start_embedding(self) -> Tensor:
        start_11 = self.lengths_R.new_full((1, 1), self.model.tokens.image_gen_start)
        return self.model.language_model.embed(start_11)

    def _spans(self, k: int) -> tuple[Tensor, Tensor]:
        """Offsets of scale k's tokens from the start token, and of the last token that each of them sees."""
        part = self.model.schedule.slices[k]
        offsets_n = torch.arange(part.start + 1, part.stop + 1, device=self.lengths_R.device)
        blockwise = self.model.settings.visual_attention == "block_causal"
        last_n = torch.full_like(offsets_n, part.stop) if blockwise else offsets_n
        if k == 0:
            own = offsets_n.new_zeros(1)
            offsets_n, last_n = torch.cat((own, offsets_n)), torch.cat((own, last_n))
        return offsets_n, last_n

    def _with_prompt(self, k: int, embeds_RnW: Tensor) -> Tensor:
        offsets_n, last_n = self._spans(k)
        slots_Rn = self.lengths_R[:, None] + offsets_n
        end = (
            self.longest + self.model.schedule.slices[k].stop + 1
        )  # known here: asked of a GPU, it would be waited for
        mask = step_mask(self.lengths_R[:, None] + last_n, end)
        positions_Rn = None if self.gaps_R is None else slots_Rn + self.gaps_R[:, None]
        hidden_RnW = self.cache.run(embeds_RnW, slots_Rn, mask, rows=self.rows, positions_Rn=positions_Rn)
        return hidden_RnW[:, 1:] if k == 0 else hidden_RnW

    def _without_prompt(self, k: int, embeds_GnW: Tensor) -> Tensor:
        offsets_n, last_n = self._spans(k)
        if self.alone is None:
            return self._noise(k, embeds_GnW)
        if self.model.settings.unconditional == "present_scale" and not self.read_before:
            return self._alone_at(k, embeds_GnW)
        before = self.read_before
        slots_Gn = (offsets_n + before).expand(self.halves, -1)
        mask = step_mask((last_n + before).expand(self.halves, -1), before + self.model.schedule.slices[k].stop + 1)
        # Alone it stands where the picture does; behind text of its own, where this ends.
        positions_Gn = slots_Gn if before else self.lengths_R[self.guided, None] + offsets_n
        if not before and self.gaps_R is not None:
            positions_Gn = positions_Gn + self.gaps_R[self.guided, None]
        hidden_GnW = self.alone.run(embeds_GnW, slots_Gn, mask, positions_Rn=positions_Gn)
        return hidden_GnW[:, 1:] if k == 0 else hidden_GnW

    def _alone_at(self, k: int, embeds_GnW: Tensor) -> Tensor:
        """What the language model makes of the present scale as if nothing was before it, nor the start token."""
        if k == 0:
            embeds_GnW = embeds_GnW[:, 1:]
        slots_Gn = torch.arange(embeds_GnW.shape[1], device=self.lengths_R.device).expand(self.halves, -1)
        blockwise = self.model.settings.visual_attention == "block_causal"
        last_Gn = torch.full_like(slots_Gn, embeds_GnW.shape[1] - 1) if blockwise else slots_Gn
        assert self.alone is not None
        return self.alone.run(embeds_GnW, slots_Gn, step_mask(last_Gn, embeds_GnW.shape[1]))

    def _condition(self, guided: Sequence[int]) -> Any:
        """The decoder's condition of all rows, and of those with guidance once more without a prompt."""
        conditions, count = self.model.conditions, len(self.rows)
        if not conditions.reads_prompts:
            return self.decoder.condition(self.labels_R[:1].expand(count + len(guided)))
        before = None
        if self.cache.keeps:
            kept = zip(self.rows, self.lengths_R.tolist(), strict=True)
            before = TextRows.of([self.cache.kept_BSC[row, :length] for row, length in kept])
        own = conditions.heard(conditions.told(self.labels_R, before), before)
        return joined(own, conditions.nothing(own, guided)) if guided else own

    def _noise(self, k: int, like_GnW: Tensor) -> Tensor:
        part = self.model.schedule.slices[k]
        if self.noise_RLW is not None:
            return self.noise_RLW[self.guided, part].to(like_GnW)
        shape = (part.stop - part.start, like_GnW.shape[-1])
        if self.generator is None or isinstance(self.generator, torch.Generator):
            return _normal((self.halves, *shape), self.generator).to(like_GnW)
        streams = self.generator if isinstance(self.guided, slice) else [self.generator[r] for r in self.guided]
        return torch.cat([_normal((1, *shape), own) for own in streams]).to(like_GnW)


def draw_pictures(
    model: VARGPTModel,
    cache: LanguageCache,
    rows: Sequence[int],
    lengths: Sequence[int],
    settings: SamplingSettings,
    generator: Generators = None,
    *,
    noise_RLW: Tensor | None = None,
    keep_logits: bool = False,
) -> Drawing:
    """Draw one picture in each of some rows of a cache; arguments as for `PictureStep` and `next_scale_loop`."""
    step = PictureStep(model, cache, rows, lengths, settings, generator, noise_RLW)
    return next_scale_loop(step, model.image_tokenizer, settings, generator, keep_logits=keep_logits)


def draw_rows(
    model: VARGPTModel,
    cache: LanguageCache,
    rows: Sequence[int],
    lengths: Sequence[int],
    settings: Sequence[SamplingSettings],
    streams: Sequence[torch.Generator],
    on_scale: Callable[[int, Tensor], None] | None = None,
    keep_logits: bool = False,
    gaps: Sequence[int] | None = None,
) -> tuple[Drawing, dict[int, Exception]]:
    """Draw one picture in each of some rows of a cache, each by its own settings and from its own stream.

    Returns also what an installed package's sampler has raised, by the row's place among `rows`; its picture is void.
    """
    rules = RowRules(settings, streams)
    step = PictureStep(model, cache, rows, lengths, settings, streams, gaps=gaps)
    return next_scale_loop(step, model.image_tokenizer, rules, on_scale=on_scale, keep_logits=keep_logits), rules.failed


def _normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else None
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=device)
