"""Drawing pictures inside sequences: one pass a scale through language model and decoder, both with their caches.

Legend: R rows that draw, G those of them with guidance, n new tokens, L visual tokens of all scales, l tokens of one
scale, C width, W hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
from vargpt_lightning.models.generation.row_sampling import RowRules
from vargpt_lightning.models.language.kv_cache import LanguageCache
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
    ) -> None:
        self.model, self.cache, self.rows = model, cache, list(rows)
        self.generator, self.noise_RLW = generator, noise_RLW
        device = model.language_model.lm_head.weight.device
        self.lengths_R, self.longest = torch.tensor(list(lengths), device=device), max(lengths)
        count, L = len(self.rows), model.schedule.num_tokens
        each = [settings] * count if isinstance(settings, SamplingSettings) else settings
        guided = [r for r, own in enumerate(each) if own.guided]
        self.guided = slice(None) if len(guided) == count else guided
        self.halves = len(guided)
        hides = guided and model.settings.unconditional == "dropped_prompt"
        self.alone = LanguageCache(model.language_model, len(guided), L + 1) if hides else None
        self.labels_R = torch.full((count,), model.null_class, device=device)
        self.condition = model.visual_decoder.condition(self.labels_R[:1].expand(count + len(guided)))
        self.decoder_cache = model.visual_decoder.new_cache(count + len(guided))

    def __call__(self, k: int, input_RlC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return logits (R, l, V) of scale k with the prompt, and (G, l, V) without it where guidance is on."""
        decoder = self.model.visual_decoder
        words_RlC = decoder.embed_scale(k, self.labels_R, input_RlC)
        embeds_RnW = self.model.generation_projector_in(words_RlC)
        if k == 0:
            start_R1W = self._start_embedding().to(embeds_RnW.dtype)
            embeds_RnW = torch.cat((start_R1W.expand(len(self.rows), -1, -1), embeds_RnW), dim=1)
        hidden = [self._with_prompt(k, embeds_RnW)]
        if self.halves:
            hidden.append(self._without_prompt(k, embeds_RnW[self.guided]))
        x_RlC = self.model.generation_projector_out(torch.cat(hidden))
        logits_RlV = decoder.decode(x_RlC, self.condition, self.decoder_cache, k)
        count = len(self.rows)
        return logits_RlV[:count], logits_RlV[count:] if self.halves else None

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
        hidden_RnW = self.cache.run(embeds_RnW, slots_Rn, mask, rows=self.rows)
        return hidden_RnW[:, 1:] if k == 0 else hidden_RnW

    def _without_prompt(self, k: int, embeds_GnW: Tensor) -> Tensor:
        offsets_n, last_n = self._spans(k)
        if self.alone is None:
            return self._noise(k, embeds_GnW)
        slots_Gn = offsets_n.expand(self.halves, -1)
        mask = step_mask(last_n.expand(self.halves, -1), self.model.schedule.slices[k].stop + 1)
        positions_Gn = self.lengths_R[self.guided, None] + offsets_n
        hidden_GnW = self.alone.run(embeds_GnW, slots_Gn, mask, positions_Rn=positions_Gn)
        return hidden_GnW[:, 1:] if k == 0 else hidden_GnW

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
) -> tuple[Drawing, dict[int, Exception]]:
    """Draw one picture in each of some rows of a cache, each by its own settings and from its own stream.

    Returns also what an installed package's sampler has raised, by the row's place among `rows`; its picture is void.
    """
    rules = RowRules(settings, streams)
    step = PictureStep(model, cache, rows, lengths, settings, streams)
    return next_scale_loop(step, model.image_tokenizer, rules, on_scale=on_scale, keep_logits=keep_logits), rules.failed


def _normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else None
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=device)
