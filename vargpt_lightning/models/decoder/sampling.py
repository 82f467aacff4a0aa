"""From logits to codes: top-k and top-p, guidance, smoothing, and the one loop over the scales of a picture.

Shapes: B batch, L visual tokens of all scales, l tokens of one scale, n numbers of their codes (l, or l D in bits), K
scales, V values of a number (the codebook, or 2), C code size, H and W the side of the finest scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from vargpt_lightning.models.decoder.samplers import (
    COLDEST as COLDEST,
)
from vargpt_lightning.models.decoder.samplers import (
    DEFAULT,
    described,
    installed_sampler,
)
from vargpt_lightning.models.decoder.samplers import (
    HOTTEST as HOTTEST,
)
from vargpt_lightning.models.decoder.samplers import (
    MOST_GUIDANCE as MOST_GUIDANCE,
)
from vargpt_lightning.models.parts import checked
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.utils.errors import UserError

Generators = torch.Generator | Sequence[torch.Generator] | None
"""None: torch's own stream. One: shared by the batch. A sequence: one for each row, so that rows are independent."""

ScaleStep = Callable[[int, Tensor | None], tuple[Tensor, Tensor | None]]
"""(k, input_BlC, or None for k = 0) -> (logits_BlV, the logits without the condition or None when guidance is off)."""


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are drawn from logits.

    Args:
        top_k: codes kept per position, ties included; 0 keeps all, as does any number not below V.
        top_p: probability mass kept per position, after top-k; 0 and 1 keep all.
        cfg: guidance strength; 0 turns guidance off, and with it the second half of the batch.
        cfg_schedule: "linear" grows from 0 at the first scale to `cfg` at the last, "constant" is `cfg` at each.
        temperature: what guided logits are divided by.
        smooth: feed on a mixture of codes (Gumbel softmax) in place of the drawn one: prettier, less diverse.
        greedy: take the likeliest code, whatever the sampler; uses no randomness.
        sampler: how codes are chosen: "default", by the keys above, or an installed package's sampler (see `Sampler`).
        parts: what else changes the drawing: names of parts (see `models.parts`), each with its arguments.

    Raises:
        UserError: a value is out of its range, there is no such sampler or part, or `smooth` is set beside `greedy` or
            an installed package's sampler.
    """

    top_k: int = 900
    top_p: float = 0.95
    cfg: float = 1.5
    cfg_schedule: Literal["linear", "constant"] = "linear"
    temperature: float = 1.0
    smooth: bool = False
    greedy: bool = False
    sampler: str = DEFAULT
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.top_k, int) and self.top_k >= 0):
            raise UserError(f"top_k: got {self.top_k!r}, expected 0 (keep all) or a larger whole number")
        if not (isinstance(self.top_p, Real) and 0 <= self.top_p <= 1):
            raise UserError(f"top_p: got {self.top_p!r}, expected a number from 0 to 1")
        if not (isinstance(self.cfg, Real) and 0 <= self.cfg <= MOST_GUIDANCE):
            raise UserError(f"cfg: got {self.cfg!r}, expected a number from 0 (no guidance) to {MOST_GUIDANCE:g}")
        if self.cfg_schedule not in ("linear", "constant"):
            raise UserError(f'cfg_schedule: got {self.cfg_schedule!r}, expected "linear" or "constant"')
        if not (isinstance(self.temperature, Real) and COLDEST <= self.temperature <= HOTTEST):
            expected = f"a number from {COLDEST:g} to {HOTTEST:g}; greedy takes the likeliest code"
            raise UserError(f"temperature: got {self.temperature!r}, expected {expected}")
        if self.greedy and self.smooth:
            raise UserError("greedy, smooth: got both, expected at most one, since smooth mixes codes at random")
        installed_sampler(self.sampler)
        if self.smooth and self.sampler != DEFAULT:
            raise UserError(
                f"smooth: got True, expected False with the sampler {self.sampler!r}, which draws codes alone"
            )
        object.__setattr__(self, "parts", checked(self.parts))

    @property
    def guided(self) -> bool:
        """Whether logits without the condition are needed at all."""
        return self.cfg != 0

    def recorded(self) -> dict[str, Any]:
        """Return the settings for records and hashes: a key that came later is left out where it changes nothing."""
        found = asdict(self)
        if self.sampler == DEFAULT:
            del found["sampler"]
        if not self.parts:
            del found["parts"]
        return found


class Sampler(Protocol):
    """A function that chooses the codes of a scale; docs/add-a-sampler.md shows one."""

    def __call__(self, logits_BlV: Tensor, settings: SamplingSettings, generator: torch.Generator | None, /) -> Tensor:
        """Return a code for each position, (B, l), whole numbers below V, on the logits' device.

        Args:
            logits_BlV: of one scale, float32, after guidance, before temperature and filters.
            settings: its keys are the sampler's to follow or to leave.
            generator: where randomness comes from, None for torch's own; one for each row is one call for each row.
        """


def progress(k: int, K: int) -> float:
    """Where scale k of K stands, from 0 (first) to 1 (last); 0 when there is one scale only."""
    return k / (K - 1) if K > 1 else 0.0


def guidance_weight(settings: SamplingSettings, k: int, K: int) -> float:
    """The guidance weight t of scale k of K (VAR's released sampler: cfg * k / (K - 1))."""
    return settings.cfg if settings.cfg_schedule == "constant" else settings.cfg * progress(k, K)


def guided_logits(cond_BlV: Tensor, uncond_BlV: Tensor | None, weight: float) -> Tensor:
    """(1 + t) cond - t uncond in float32 (arXiv 2207.12598, equation 6); `cond` alone when there is no `uncond`."""
    cond_BlV = cond_BlV.float()
    return cond_BlV if uncond_BlV is None else (1 + weight) * cond_BlV - weight * uncond_BlV.float()


def filter_logits(logits_BlV: Tensor, top_k: int = 0, top_p: float = 0.0) -> Tensor:
    """A copy of the logits with all that top-k, then top-p removes at minus infinity.

    Ties at the k-th value are all kept. Top-p removes, from the least likely up, what adds up to at most 1 - p, and
    never the likeliest.
    """
    if 0 < top_k < logits_BlV.shape[-1]:
        kth_Bl1 = logits_BlV.topk(top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        logits_BlV = logits_BlV.masked_fill(logits_BlV < kth_Bl1, -torch.inf)
    if 0 < top_p < 1:
        ascending_BlV, order_BlV = logits_BlV.sort(dim=-1)
        drop_BlV = ascending_BlV.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        drop_BlV[..., -1] = False
        logits_BlV = logits_BlV.masked_fill(drop_BlV.scatter(-1, order_BlV, drop_BlV), -torch.inf)
    return logits_BlV


def sample_indices(filtered_BlV: Tensor, generator: Generators = None) -> Tensor:
    """Draws one code per position: idx_Bl from logits that are filtered already.

    One generator serves the batch in one draw; with one for each row, a row's codes are what they would be alone.
    """

    def draw(logits_blV: Tensor, stream: torch.Generator | None) -> Tensor:
        # Drawn where the generator lives, so that a seed means the same stream on every device.
        chances_NV = logits_blV.softmax(dim=-1).flatten(0, 1).to(stream.device if stream else logits_blV.device)
        idx_N1 = torch.multinomial(chances_NV, num_samples=1, replacement=True, generator=stream)
        return idx_N1.view(logits_blV.shape[:-1]).to(logits_blV.device)

    return _by_stream(draw, filtered_BlV, generator)


def gumbel_softmax(logits_BlV: Tensor, tau: float, generator: Generators = None) -> Tensor:
    """Softmax of (logits + Gumbel noise) / tau over the codes (arXiv 1611.01144, equation 2)."""

    def soften(logits_blV: Tensor, stream: torch.Generator | None) -> Tensor:
        device = stream.device if stream else logits_blV.device
        noise_blV = torch.empty(logits_blV.shape, dtype=torch.float32, device=device)
        noise_blV = -noise_blV.exponential_(generator=stream).log().to(logits_blV)
        return ((logits_blV + noise_blV) / tau).softmax(dim=-1)

    return _by_stream(soften, logits_BlV, generator)


def _by_stream(draw: Callable[[Tensor, Any], Tensor], logits_BlV: Tensor, generator: Generators) -> Tensor:
    """Calls `draw` once for the batch, or once for each row when each row has its own generator."""
    if generator is None or isinstance(generator, torch.Generator):
        return draw(logits_BlV, generator)
    if len(generator) != len(logits_BlV):
        raise ValueError(f"generator: got a list of {len(generator)}, expected one for each of {len(logits_BlV)} rows")
    return torch.cat([draw(row_1lV, own) for row_1lV, own in zip(logits_BlV.split(1), generator, strict=True)])


class ScaleRules(Protocol):
    """How the loop over the scales makes codes of logits, for rows that do not share their settings."""

    def guide(self, cond_BlV: Tensor, uncond_BlV: Tensor | None, k: int, K: int) -> Tensor:
        """Return the guided logits (B, l, V) of scale k of K, in float32."""

    def draw(self, logits_BlV: Tensor, tokenizer: MultiScaleTokenizer, k: int, K: int) -> tuple[Tensor, Tensor]:
        """Return features (B, l, C) and codes, (B, l) or (B, l, D), of scale k of K from guided logits."""


class _OneForAll(NamedTuple):
    """The rules where the settings are the whole batch's."""

    settings: SamplingSettings
    generator: Generators

    def guide(self, cond_BlV: Tensor, uncond_BlV: Tensor | None, k: int, K: int) -> Tensor:
        if self.settings.guided and uncond_BlV is None:
            raise ValueError(
                f"cfg: got {self.settings.cfg}, expected 0 where scale {k} has no logits without the condition"
            )
        return guided_logits(cond_BlV, uncond_BlV, guidance_weight(self.settings, k, K))

    def draw(self, logits_BlV: Tensor, tokenizer: MultiScaleTokenizer, k: int, K: int) -> tuple[Tensor, Tensor]:
        return _draw_scale(logits_BlV, tokenizer, self.settings, self.generator, progress(k, K))


class Drawing(NamedTuple):
    """What the loop over the scales leaves: the codes, the accumulated features, and the guided logits if kept."""

    idx_BL: Tensor
    f_hat_BCHW: Tensor
    logits_BLV: Tensor | None = None


@torch.no_grad()
def next_scale_loop(
    step: ScaleStep,
    tokenizer: MultiScaleTokenizer,
    settings: SamplingSettings | ScaleRules,
    generator: Generators = None,
    *,
    keep_logits: bool = False,
    on_scale: Callable[[int, Tensor], None] | None = None,
) -> Drawing:
    """Draws pictures scale by scale (VAR, arXiv 2404.02905, section 3.2).

    Args:
        step: gives the logits of scale k from the features accumulated so far, at that scale's size (B, l, C), or None
            at the first scale; anything random in it is drawn before the codes of the scale.
        tokenizer: of pictures: its schedule, `embed_codes` and `accumulate` are used.
        settings: how codes are drawn; or rules, which have the settings and generators of their rows.
        generator: source of randomness for the batch, or one for each row.
        keep_logits: also return the guided logits of all scales, before temperature and filters.
        on_scale: is told k and the features (B, C, H, W) after each scale; what it raises ends the drawing.

    Raises:
        ValueError: guidance is on and `step` gives no logits without the condition.
    """
    K = tokenizer.schedule.num_scales
    rules = _OneForAll(settings, generator) if isinstance(settings, SamplingSettings) else settings
    input_BlC = f_hat_BCHW = None
    idx: list[Tensor] = []
    kept: list[Tensor] = []
    for k in range(K):
        cond_BlV, uncond_BlV = step(k, input_BlC)
        logits_BlV = rules.guide(cond_BlV, uncond_BlV, k, K)
        if keep_logits:
            kept.append(logits_BlV)
        codes_BlC, idx_Bl = rules.draw(logits_BlV, tokenizer, k, K)
        idx.append(idx_Bl)
        if f_hat_BCHW is None:
            f_hat_BCHW = tokenizer.empty_f_hat(len(codes_BlC))
        f_hat_BCHW, input_BlC = tokenizer.accumulate(k, f_hat_BCHW, codes_BlC)
        if on_scale is not None:
            on_scale(k, f_hat_BCHW)
    assert f_hat_BCHW is not None
    return Drawing(torch.cat(idx, dim=1), f_hat_BCHW, torch.cat(kept, dim=1) if keep_logits else None)


def _draw_scale(
    logits_BlV: Tensor, tokenizer: MultiScaleTokenizer, settings: SamplingSettings, generator: Generators, ratio: float
) -> tuple[Tensor, Tensor]:
    """The codes' features that the picture is built from, and the drawn codes, of one scale."""
    logits_BnV = by_number(logits_BlV, tokenizer)
    if settings.greedy:
        codes = by_token(logits_BnV.argmax(dim=-1), tokenizer)
        return tokenizer.embed_codes(codes), codes
    if (sampler := installed_sampler(settings.sampler)) is not None:
        chosen_Bn = _by_stream(
            lambda logits_bnV, stream: chosen_by(sampler, logits_bnV, settings, stream), logits_BnV, generator
        )
        codes = by_token(chosen_Bn, tokenizer)
        return tokenizer.embed_codes(codes), codes
    filtered_BnV = filter_logits(logits_BnV / settings.temperature, settings.top_k, settings.top_p)
    codes = by_token(sample_indices(filtered_BnV, generator), tokenizer)
    if not settings.smooth:
        return tokenizer.embed_codes(codes), codes
    return mixed_codes(filtered_BnV, tokenizer, generator, ratio), codes


def by_number(logits_BlV: Tensor, tokenizer: MultiScaleTokenizer) -> Tensor:
    """Return logits with one position for each of a token's numbers (B, n, V): its D bits, or its one index."""
    if tokenizer.numbers is None:
        return logits_BlV
    return logits_BlV.unflatten(-1, (tokenizer.numbers, tokenizer.vocabulary)).flatten(1, 2)


def by_token(numbers_Bn: Tensor, tokenizer: MultiScaleTokenizer) -> Tensor:
    """Return numbers as those of tokens: (B, l) indices, or (B, l, D)."""
    return numbers_Bn if tokenizer.numbers is None else numbers_Bn.unflatten(1, (-1, tokenizer.numbers))


def mixed_codes(filtered_BnV: Tensor, tokenizer: MultiScaleTokenizer, generator: Generators, ratio: float) -> Tensor:
    """Features (B, l, C) of a random mixture of codes, at `ratio` of the scales (see `progress`): setting `smooth`.

    The logits have a position for each number of a token.
    """
    # Both numbers are the released sampler's: sharper, and surer of the logits, towards the last scale.
    tau = max(0.27 * (1 - 0.95 * ratio), 0.005)
    weights_BnV = gumbel_softmax(filtered_BnV * (1 + ratio), tau, generator)
    codebook = tokenizer.embed_codes(torch.arange(weights_BnV.shape[-1], device=weights_BnV.device))
    mixed = weights_BnV.to(codebook.dtype) @ codebook
    return mixed if tokenizer.numbers is None else by_token(mixed, tokenizer)


def chosen_by(
    sampler: Sampler, logits_BlV: Tensor, settings: SamplingSettings, stream: torch.Generator | None
) -> Tensor:
    """What an installed package's sampler chooses; raises UserError for what are no codes."""
    idx_Bl = sampler(logits_BlV, settings, stream)
    shape, codes = tuple(logits_BlV.shape[:-1]), logits_BlV.shape[-1]
    found = f"{tuple(idx_Bl.shape)} of {idx_Bl.dtype}" if isinstance(idx_Bl, Tensor) else type(idx_Bl).__name__
    if not isinstance(idx_Bl, Tensor) or idx_Bl.dtype != torch.long or tuple(idx_Bl.shape) != shape:
        raise UserError(f"{described(settings.sampler)} returned {found}; expected {shape} of {torch.long}")
    if not bool(((idx_Bl >= 0) & (idx_Bl < codes)).all()):
        least, most = int(idx_Bl.min()), int(idx_Bl.max())
        raise UserError(f"{described(settings.sampler)} chose codes from {least} to {most}; expected 0 to {codes - 1}")
    return idx_Bl.to(logits_BlV.device)
