"""How bits are drawn from logits: guidance and temperature by scale, top-k and top-p on two-way choices, given bits.

Shapes: B pictures, l tokens of one scale, K scales, D bits of a token, V = 2 D logits of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from vargpt_lightning.models.bitwise.losses import bit_logits
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.samplers import COLDEST, DEFAULT, HOTTEST, MOST_GUIDANCE
from vargpt_lightning.models.decoder.sampling import (
    Generators,
    SamplingSettings,
    filter_logits,
    guidance_weight,
    sample_indices,
)
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.utils.errors import UserError

ON_LOGITS = 0
"""The place of `BitSampling.guidance_at` that is behind the head."""


@dataclass(frozen=True)
class BitSampling:
    """How bits are drawn (the settings of Infinity's sampler).

    Args:
        cfg: guidance, one number or one for each scale: logits with the prompt times cfg, and without it times 1 - cfg;
            1 is none.
        temperature: what logits are divided by, before guidance; one number or one for each scale.
        top_k: values kept for each bit, ties included: 1 keeps the likelier one, any other number does nothing, since a
            bit has two values (the published 900).
        top_p: probability mass kept for each bit: one whose rarer value has 1 - top_p or less becomes certain; 0 and 1
            keep both.
        guidance_at: where guidance acts: 0 on the logits, -k on what comes out of the k-th block from the end.
        greedy: take the likelier value.

    Raises:
        UserError: a value is out of its range.
    """

    cfg: float | tuple[float, ...] = 3.0
    temperature: float | tuple[float, ...] = 0.5
    top_k: int = 0
    top_p: float = 0.97
    guidance_at: tuple[int, ...] = (ON_LOGITS,)
    greedy: bool = False

    def __post_init__(self) -> None:
        for key in ("cfg", "temperature"):
            if isinstance(value := getattr(self, key), list):
                object.__setattr__(self, key, tuple(value))
        expected = f"numbers from {-MOST_GUIDANCE:g} to {MOST_GUIDANCE:g}; 1 is no guidance"
        _check_list("cfg", self.cfg, -MOST_GUIDANCE, MOST_GUIDANCE, expected)
        expected = f"numbers from {COLDEST:g} to {HOTTEST:g}; greedy takes the likelier bits"
        _check_list("temperature", self.temperature, COLDEST, HOTTEST, expected)
        if not (isinstance(self.top_k, int) and self.top_k >= 0):
            raise UserError(f"top_k: got {self.top_k!r}, expected 0 (keep both values) or a larger whole number")
        if not (isinstance(self.top_p, Real) and 0 <= self.top_p <= 1):
            raise UserError(f"top_p: got {self.top_p!r}, expected a number from 0 to 1")
        object.__setattr__(self, "guidance_at", tuple(self.guidance_at))
        if not self.guidance_at or max(self.guidance_at) > 0:
            raise UserError(
                f"guidance_at: got {list(self.guidance_at)}, expected 0 (logits), -k (k-th block from the end), or both"
            )

    @property
    def guided(self) -> bool:
        """Whether any scale needs what the decoder makes of the other prompt."""
        return any(weight != 1 for weight in _several(self.cfg))

    def weight(self, k: int) -> float:
        """The guidance of scale k."""
        return _of_scale("cfg", self.cfg, k)

    def heat(self, k: int) -> float:
        """The temperature of scale k."""
        return _of_scale("temperature", self.temperature, k)

    def check(self, scales: int, depth: int) -> None:
        """Raise UserError where a list is shorter than the schedule, or a block is none of the decoder's."""
        _of_scale("cfg", self.cfg, scales - 1)
        _of_scale("temperature", self.temperature, scales - 1)
        if min(self.guidance_at) < -depth:
            raise UserError(f"guidance_at: got {min(self.guidance_at)}, expected no less than -{depth}, the blocks")


def bit_sampling(settings: SamplingSettings, scales: int) -> BitSampling:
    """Return the settings of other drawings as those of bits, for so many scales; their guidance 0 is 1 here.

    Raises:
        UserError: they mix codes, or name a sampler of an installed package.
    """
    if settings.smooth or settings.sampler != DEFAULT:
        raise UserError("smooth, sampler: expected neither for a decoder of bits by itself")
    return BitSampling(
        cfg=tuple(1 + guidance_weight(settings, k, scales) for k in range(scales)),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        greedy=settings.greedy,
    )


class LayerGuidance(NamedTuple):
    """Guidance on what comes out of some blocks, numbered from 0: both halves of the batch become the mixture."""

    weight: float
    blocks: frozenset[int]

    def mix(self, x_BLC: Tensor) -> Tensor:
        """Mix the second half of a batch into the first, and give both the result."""
        cond_BLC, other_BLC = x_BLC.chunk(2)
        mixed_BLC = self.weight * cond_BLC + (1 - self.weight) * other_BLC
        return torch.cat((mixed_BLC, mixed_BLC))


def layer_guidance(settings: BitSampling, k: int, depth: int) -> LayerGuidance | None:
    """Return the guidance inside of the decoder at scale k, None where there is none."""
    blocks = frozenset(depth + place for place in settings.guidance_at if place < 0)
    return LayerGuidance(settings.weight(k), blocks) if blocks and settings.weight(k) != 1 else None


class BitRules(NamedTuple):
    """The rules of `next_scale_loop` for bits.

    Args:
        settings: of the whole batch.
        generator: where draws come from; one, or one for each picture.
        uniforms_BLD: draws from [0, 1) to use instead, for all scales in a row: a bit is 1 where its number is no less
            than the probability of 0.
        given_BnD: bits of the first scales, which are taken as they are; draws for them are used up all the same.
    """

    settings: BitSampling
    generator: Generators = None
    uniforms_BLD: Tensor | None = None
    given_BnD: Tensor | None = None

    def check(self, schedule: ScaleSchedule, batch: int, bits: int, depth: int) -> None:
        """Raise UserError where settings or numbers do not fit a drawing, or a decoder of so many bits and blocks."""
        self.settings.check(schedule.num_scales, depth)
        if self.given_BnD is not None:
            shape, ends = tuple(self.given_BnD.shape), [part.stop for part in schedule.slices]
            if len(shape) != 3 or (shape[0], shape[2]) != (batch, bits) or shape[1] not in ends:
                raise UserError(f"given bits: got shape {shape}, expected ({batch}, one of {ends}, {bits})")
        if self.uniforms_BLD is not None:
            shape, expected = tuple(self.uniforms_BLD.shape), (batch, schedule.num_tokens, bits)
            if shape != expected:
                raise UserError(f"uniforms: got shape {shape}, expected {expected}")

    def guide(self, cond_BlV: Tensor, uncond_BlV: Tensor | None, k: int, K: int) -> Tensor:
        """Return the logits (B, l, V) of scale k after temperature and guidance, in float32."""
        cooling, weight = 1 / self.settings.heat(k), self.settings.weight(k)
        cond_BlV = cond_BlV.float() * cooling
        if uncond_BlV is None:
            return cond_BlV
        return weight * cond_BlV + (1 - weight) * (uncond_BlV.float() * cooling)

    def draw(self, logits_BlV: Tensor, tokenizer: MultiScaleTokenizer, k: int, K: int) -> tuple[Tensor, Tensor]:
        """Return features and bits (B, l, D) of scale k."""
        part = tokenizer.schedule.slices[k]
        bits_BlD = self._drawn(logits_BlV, part)
        if self.given_BnD is not None and part.stop <= self.given_BnD.shape[1]:
            bits_BlD = self.given_BnD[:, part].to(bits_BlD)
        return tokenizer.embed_codes(bits_BlD), bits_BlD

    def _drawn(self, logits_BlV: Tensor, part: slice) -> Tensor:
        pairs_BlD2 = bit_logits(logits_BlV)
        if self.settings.greedy:
            return pairs_BlD2.argmax(-1)
        kept_BN2 = filter_logits(pairs_BlD2.flatten(1, 2), self.settings.top_k, self.settings.top_p)
        if self.uniforms_BLD is None:
            return sample_indices(kept_BN2, self.generator).view(pairs_BlD2.shape[:-1])
        zero_BlD = kept_BN2.softmax(-1)[..., 0].view(pairs_BlD2.shape[:-1])
        return (self.uniforms_BLD[:, part].to(zero_BlD) >= zero_BlD).long()


def _several(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _of_scale(name: str, value: float | tuple[float, ...], k: int) -> float:
    if not isinstance(value, tuple):
        return value
    if k >= len(value):
        raise UserError(f"{name}: got {len(value)} numbers, expected one for each of the schedule's scales")
    return value[k]


def _check_list(name: str, value: float | tuple[float, ...], low: float, high: float, expected: str) -> None:
    each = _several(value)
    if not each or not all(isinstance(number, Real) and low <= number <= high for number in each):
        raise UserError(f"{name}: got {value!r}, expected {expected}")
