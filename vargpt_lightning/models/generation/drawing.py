"""Drawing pictures inside sequences: one pass a scale through language model and decoder, both with their caches.

Legend: R rows that draw, n new tokens, L visual tokens of all scales, l tokens of one scale, C width, W hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
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
        generator: source of the noise where the unconditional half is noise; one, or one for each row.
        noise_RLW: that noise itself, for all scales in a row, instead of drawing it.
    """

    def __init__(
        self,
        model: VARGPTModel,
        cache: LanguageCache,
        rows: Sequence[int],
        lengths: Sequence[int],
        settings: SamplingSettings,
        generator: Generators = None,
        noise_RLW: Tensor | None = None,
    ) -> None:
        self.model, self.cache, self.rows, self.settings = model, cache, list(rows), settings
        self.generator, self.noise_RLW = generator, noise_RLW
        device = model.language_model.lm_head.weight.device
        self.lengths_R = torch.tensor(list(lengths), device=device)
        hides = settings.guided and model.settings.unconditional == "dropped_prompt"
        count, L = len(self.rows), model.schedule.num_tokens
        self.alone = LanguageCache(model.language_model, count, L + 1) if hides else None
        halves = 2 if settings.guided else 1
        self.labels_R = torch.full((count,), model.null_class, device=device)
        self.condition = model.visual_decoder.condition(self.labels_R.repeat(halves))
        self.decoder_cache = model.visual_decoder.new_cache(count * halves)

    def __call__(self, k: int, input_RlC: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return logits (R, l, V) of scale k with the prompt, and without it where guidance is on."""
        decoder = self.model.visual_decoder
        words_RlC = decoder.embed_scale(k, self.labels_R, input_RlC)
        embeds_RnW = self.model.generation_projector_in(words_RlC)
        if k == 0:
            start_R1W = self._start_embedding().to(embeds_RnW.dtype)
            embeds_RnW = torch.cat((start_R1W.expand(len(self.rows), -1, -1), embeds_RnW), dim=1)
        hidden = [self._with_prompt(k, embeds_RnW)]
        if self.settings.guided:
            hidden.append(self._without_prompt(k, embeds_RnW))
        x_RlC = self.model.generation_projector_out(torch.cat(hidden))
        logits_RlV = decoder.decode(x_RlC, self.condition, self.decoder_cache, k)
        if not self.settings.guided:
            return logits_RlV, None
        with_prompt, without_prompt = logits_RlV.chunk(2)
        return with_prompt, without_prompt

    def _start_embedding(self) -> Tensor:
        start_11 = self.lengths_R.new_full((1, 1), self.model.tokens.image_gen_start)
        return self.model.language_model.model.embed_tokens(start_11)

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
        mask = step_mask(self.lengths_R[:, None] + last_n, int(slots_Rn.max()) + 1)
        hidden_RnW = self.cache.run(embeds_RnW, slots_Rn, mask, rows=self.rows)
        return hidden_RnW[:, 1:] if k == 0 else hidden_RnW

    def _without_prompt(self, k: int, embeds_RnW: Tensor) -> Tensor:
        offsets_n, last_n = self._spans(k)
        if self.alone is None:
            return self._noise(k, embeds_RnW)
        count = len(self.rows)
        slots_Rn = offsets_n.expand(count, -1)
        mask = step_mask(last_n.expand(count, -1), int(offsets_n[-1]) + 1)
        positions_Rn = self.lengths_R[:, None] + offsets_n
        hidden_RnW = self.alone.run(embeds_RnW, slots_Rn, mask, positions_Rn=positions_Rn)
        return hidden_RnW[:, 1:] if k == 0 else hidden_RnW

    def _noise(self, k: int, like_RnW: Tensor) -> Tensor:
        part = self.model.schedule.slices[k]
        if self.noise_RLW is not None:
            return self.noise_RLW[:, part].to(like_RnW)
        shape = (part.stop - part.start, like_RnW.shape[-1])
        if self.generator is None or isinstance(self.generator, torch.Generator):
            return _normal((len(self.rows), *shape), self.generator).to(like_RnW)
        return torch.cat([_normal((1, *shape), own) for own in self.generator]).to(like_RnW)


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
    on_scale: Callable[[int, Tensor], None] | None = None,
) -> Drawing:
    """Draw one picture in each of some rows of a cache; arguments as for `PictureStep` and `next_scale_loop`."""
    step = PictureStep(model, cache, rows, lengths, settings, generator, noise_RLW)
    return next_scale_loop(step, model.image_tokenizer, settings, generator, keep_logits=keep_logits, on_scale=on_scale)


def _normal(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else None
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=device)
