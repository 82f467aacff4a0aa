"""From logits to codes and words where every row has settings and a random stream of its own.

A row's codes are, bit by bit, what `models.decoder.sampling` makes of its logits alone: the same numbers are drawn from
the same streams, and all else is one operation for all rows.

Shapes: R rows, G those with guidance, l positions, V vocabulary, C code size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vargpt_lightning.models.decoder.samplers import installed_sampler
from vargpt_lightning.models.decoder.sampling import (
    SamplingSettings,
    by_number,
    by_token,
    chosen_by,
    filter_logits,
    guidance_weight,
    mixed_codes,
    progress,
)
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer


class RowRules:
    """The rules of `next_scale_loop` for rows with settings of their own.

    Attributes:
        failed: what an installed package's sampler has raised, by row; such a row goes on with code 0.
    """

    def __init__(self, settings: Sequence[SamplingSettings], streams: Sequence[torch.Generator]) -> None:
        self.settings, self.streams = list(settings), list(streams)
        self.failed: dict[int, Exception] = {}
        rows = range(len(self.settings))
        self.guided = [r for r in rows if self.settings[r].guided]
        self.samplers = {r: found for r in rows if (found := installed_sampler(self.settings[r].sampler)) is not None}
        self.likeliest = [r for r in rows if self.settings[r].greedy]
        self.foreign = [r for r in self.samplers if not self.settings[r].greedy]
        self.drawn = [r for r in rows if r not in self.samplers and not self.settings[r].greedy]
        self.smooth = [r for r in self.drawn if self.settings[r].smooth]

    def weights(self, k: int, K: int) -> list[float]:
        """The guidance weights of the guided rows at scale k of K."""
        return [guidance_weight(self.settings[r], k, K) for r in self.guided]

    def guide(
        self, cond_RlV: Tensor, uncond_GlV: Tensor | None, k: int, K: int, weights: Sequence[float] | None = None
    ) -> Tensor:
        """Return the guided logits (R, l, V) of scale k of K, in float32; `uncond_GlV` holds the guided rows alone.

        `weights` are theirs, where they are not those of the settings.
        """
        cond_RlV = cond_RlV.float()
        if not self.guided:
            return cond_RlV
        assert uncond_GlV is not None
        weights = self.weights(k, K) if weights is None else weights
        more_G11, weight_G11 = (_column(each, cond_RlV) for each in ([1 + weight for weight in weights], weights))
        if len(self.guided) == len(cond_RlV):
            return more_G11 * cond_RlV - weight_G11 * uncond_GlV.float()
        guided_RlV = cond_RlV.clone()
        guided_RlV[self.guided] = more_G11 * cond_RlV[self.guided] - weight_G11 * uncond_GlV.float()
        return guided_RlV

    def draw(self, logits_RlV: Tensor, tokenizer: MultiScaleTokenizer, k: int, K: int) -> tuple[Tensor, Tensor]:
        """Return features (R, l, C) and codes, (R, l) or (R, l, D), of scale k of K from guided logits."""
        logits_RlV = by_number(logits_RlV, tokenizer)
        idx_Rl = torch.zeros(logits_RlV.shape[:-1], dtype=torch.long, device=logits_RlV.device)
        if self.likeliest:
            idx_Rl[self.likeliest] = logits_RlV[self.likeliest].argmax(dim=-1)
        for r in self.foreign:
            idx_Rl[r] = self._ask(r, logits_RlV[r : r + 1])
        filtered_RlV = None
        if self.drawn:
            own = [self.settings[r] for r in self.drawn]
            some_RlV = logits_RlV if len(own) == len(logits_RlV) else logits_RlV[self.drawn]
            filtered_RlV = filter_rows(
                some_RlV / _column([each.temperature for each in own], some_RlV),
                [each.top_k for each in own],
                [each.top_p for each in own],
            )
            idx_Rl[self.drawn] = sample_rows(filtered_RlV, [self.streams[r] for r in self.drawn])
        codes = by_token(idx_Rl, tokenizer)
        codes_RlC = tokenizer.embed_codes(codes)
        if self.smooth:
            assert filtered_RlV is not None
            places = [self.drawn.index(r) for r in self.smooth]
            streams = [self.streams[r] for r in self.smooth]
            codes_RlC[self.smooth] = mixed_codes(filtered_RlV[places], tokenizer, streams, progress(k, K))
        return codes_RlC, codes

    def _ask(self, r: int, logits_1lV: Tensor) -> Tensor:
        """What an installed package's sampler chooses for a row; what it raises is that row's alone."""
        if r not in self.failed:
            try:
                return chosen_by(self.samplers[r], logits_1lV, self.settings[r], self.streams[r])[0]
            except Exception as error:  # code of another package: anything may come
                self.failed[r] = error
        return torch.zeros(logits_1lV.shape[1], dtype=torch.long, device=logits_1lV.device)


def filter_rows(logits_RlV: Tensor, top_k: Sequence[int], top_p: Sequence[float]) -> Tensor:
    """`filter_logits` with numbers of its own for each row."""
    if len(set(zip(top_k, top_p, strict=True))) == 1:
        return filter_logits(logits_RlV, top_k[0], top_p[0])
    V = logits_RlV.shape[-1]
    # Step by step as `filter_logits` does it: of logits that are equal, the order of a sort decides which are dropped.
    if kept := [k for k in top_k if 0 < k < V]:
        most_RlK = logits_RlV.topk(max(kept), dim=-1).values
        last_R = torch.tensor([k - 1 if 0 < k < V else 0 for k in top_k], device=logits_RlV.device)
        kth_Rl1 = most_RlK[torch.arange(len(last_R), device=last_R.device), :, last_R, None]
        all_R = torch.tensor([not 0 < k < V for k in top_k], device=logits_RlV.device)
        logits_RlV = logits_RlV.masked_fill((logits_RlV < kth_Rl1) & ~all_R[:, None, None], -torch.inf)
    if any(0 < p < 1 for p in top_p):
        ascending_RlV, order_RlV = logits_RlV.sort(dim=-1)
        # No sum of chances is at most -1: nothing is dropped where there is no top-p.
        most_R11 = _column([1 - p if 0 < p < 1 else -1.0 for p in top_p], ascending_RlV)
        drop_RlV = ascending_RlV.softmax(dim=-1).cumsum(dim=-1) <= most_R11
        drop_RlV[..., -1] = False
        logits_RlV = logits_RlV.masked_fill(drop_RlV.scatter(-1, order_RlV, drop_RlV), -torch.inf)
    return logits_RlV


def sample_rows(filtered_RlV: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """Draw one code per position, (R, l), from logits that are filtered already.

    `torch.multinomial` draws an exponential number for each chance and takes the largest quotient; so does this, with
    the numbers of each row from its own stream and one quotient for all rows.

    Raises:
        ValueError: a logit is no number.
    """
    chances_RlV = filtered_RlV.softmax(dim=-1)
    try:  # a GPU is not waited for: it checks when it comes to it, as `torch.multinomial` does
        torch._assert_async(chances_RlV.isnan().any().logical_not())
    except RuntimeError as error:
        raise ValueError("logits: got some that are no numbers, from which no code can be drawn") from error
    # Drawn where the generators live, so that a seed means the same stream on every device.
    noise_RlV = torch.empty(chances_RlV.shape, dtype=chances_RlV.dtype, device=streams[0].device)
    for noise_lV, own in zip(noise_RlV, streams, strict=True):
        noise_lV.exponential_(generator=own)
    return (chances_RlV / noise_RlV.to(chances_RlV.device)).argmax(dim=-1)


def _column(numbers: Sequence[float], like_RlV: Tensor) -> Tensor:
    """Numbers of rows as (R, 1, 1), for what has rows, positions and a vocabulary."""
    return torch.tensor(numbers, dtype=like_RlV.dtype, device=like_RlV.device)[:, None, None]
