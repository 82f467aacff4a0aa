"""Image tokenizer in bits: a convolutional autoencoder around a multi-scale binary quantizer (Infinity, 2412.04431).

Parameter names are those of VAR's encoder and decoder; there is no codebook and nothing else to learn. Codes are
integers (torch.long) of 0 and 1, (B, L, D). Pictures are in [-1, 1].

Legend: B batch, L tokens of all scales, l tokens of one scale, K scales, d channels of the features, D bits of a token,
H and W height and width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.bit_usage import BitCounts
from vargpt_lightning.models.tokenizer.bits import BitQuantizer
from vargpt_lightning.models.tokenizer.entropy import bit_losses
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.models.tokenizer.quantizer import Change

GROUPS = (32, 24)
"""Groups of the normalisations: 32, or 24 where these do not divide the width."""


class BitOutput(NamedTuple):
    """What a training step needs: pictures (B, 3, H, W), not clamped; unweighted loss terms; the bits (B, L, D)."""

    reconstruction: Tensor
    commitment_loss: Tensor
    sample_entropy: Tensor
    batch_entropy: Tensor
    vq_loss: Tensor
    bits_BLD: Tensor

    @property
    def terms(self) -> dict[str, Tensor]:
        """The loss terms by name."""
        return {name: getattr(self, name) for name in ("commitment_loss", "sample_entropy", "batch_entropy")}

    @property
    def codes(self) -> Tensor:
        """The bits (B, L, D)."""
        return self.bits_BLD


class BitTokenizer(MultiScaleTokenizer):
    """Multi-scale BSQ tokenizer whose defaults are those of Infinity's 32-bit one at 256 px (521 tokens).

    Args:
        scales: sizes of the token maps (see `ScaleSchedule`); any schedule serves the same weights (`with_schedule`).
        channels: width of the convolutions at full resolution.
        channel_multipliers: width of each resolution in units of ``channels``; each step halves the resolution.
        residual_blocks: residual blocks a resolution (the decoder has one more).
        bits: d, bits of a position of the features.
        patchify: a token stands for 2 x 2 positions and has 4 d bits.
        beta: weight of the commitment term.
        entropy_weight: weight of the entropy terms (see `entropy.bit_losses`).
        entropy_sharpness: how sharply the entropy terms take a feature for a bit.
        attention: self-attention at the lowest resolution.
        dropout: dropout in the residual blocks.
        patch: side of the squares of pixels that the first convolution is given as channels, and the last one gives.
        local: features of each square of pixels by itself.

    Raises:
        UserError: (a ValueError) for values outside of what is said above.
    """

    def __init__(
        self,
        *,
        scales: Sequence[Any] = (1, 2, 4, 6, 8, 12, 16),
        channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 4, 4, 4),
        residual_blocks: int = 2,
        bits: int = 32,
        patchify: bool = False,
        beta: float = 0.25,
        entropy_weight: float = 0.1,
        entropy_sharpness: float = 100.0,
        attention: bool = False,
        dropout: float = 0.0,
        patch: int = 1,
        local: bool = False,
    ) -> None:
        super().__init__(
            scales=scales,
            channels=channels,
            channel_multipliers=channel_multipliers,
            residual_blocks=residual_blocks,
            latent=bits,
            attention=attention,
            dropout=dropout,
            patch=patch,
            local=local,
            side=2 if patchify else 1,
            groups=GROUPS,
        )
        self.quantize = BitQuantizer(bits, 2 if patchify else 1)
        self.code_size, self.vocabulary = self.quantize.bits, 2
        self.beta, self.entropy_weight, self.entropy_sharpness = beta, entropy_weight, entropy_sharpness
        self.usage = BitCounts(self.schedule.num_scales, self.code_size)

    @property
    def numbers(self) -> int:
        """D, bits of a token."""
        return self.code_size

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a tokenizer of these very weights for other sizes of pictures; what is counted is counted together
        where the scales are as many."""
        other = super().with_schedule(schedule)
        if schedule.num_scales != self.schedule.num_scales:
            other.usage = BitCounts(schedule.num_scales, self.code_size)
        return other

    def encoding_state(self) -> dict[str, Tensor]:
        """Return the weights that codes depend on: not the decoder's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("decoder.")}

    def scales_of(self, f_BCHW: Tensor, change: Change | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return the bits (B, l, D) of each scale and what they, or the changed ones, add to the features."""
        return [(step.bits_BlD, step.added_BdHW) for step in self.quantize.steps(f_BCHW, self.schedule, change)]

    def next_input(self, k: int, f_hat_BCHW: Tensor) -> Tensor:
        """Return the input (B, l, D) of the scale after ``k``."""
        return self.quantize.next_input(k, f_hat_BCHW, self.schedule)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Return the features ±1/√d of bits, in their shape."""
        return self.quantize.embed(codes)

    def empty_f_hat(self, batch: int) -> Tensor:
        """Return the zeros (B, d, H, W) from which :meth:`accumulate` starts."""
        return self.quantize.empty(batch, self.schedule, self.device)

    def accumulate(self, k: int, f_hat_BCHW: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`MultiScaleTokenizer.accumulate`; ``h`` is features of tokens (B, l, D), or a map (B, d, h, w)."""
        h_Bdhw = self.quantize.map(h, self.schedule.shapes[k]) if h.dim() == 3 else h
        return self.quantize.accumulate(k, f_hat_BCHW, h_Bdhw, self.schedule)

    def forward(self, x_B3HW: Tensor) -> BitOutput:
        """Reconstruct pictures for training; in training mode the use of the bits is recorded."""
        steps = self.quantize.steps(self.features(x_B3HW), self.schedule)
        f_hat_BdHW = torch.stack([step.added_BdHW for step in steps]).sum(0)
        losses = bit_losses([step.unit_Bdhw for step in steps], self.entropy_sharpness)
        vq_loss = self.beta * losses.commitment + self.entropy_weight * losses.penalty
        bits_BLD = torch.cat([step.bits_BlD for step in steps], dim=1)
        if self.training:
            self.usage.record([step.bits_BlD for step in steps])
        return BitOutput(self.draw(f_hat_BdHW), losses.commitment, losses.sample, losses.batch, vq_loss, bits_BLD)

    def draw(self, f_hat_BCHW: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of reconstructed features, not clamped."""
        return self.decoder(f_hat_BCHW.to(self.encoder.conv_in.weight.dtype)).contiguous()

    def usage_per_scale(self) -> list[float]:
        """Return for each scale how much of its bits is used, in percent (see `BitCounts`)."""
        return self.usage.used_SD().mean(1).tolist()

    def counts(self) -> list[list[int]]:
        """Return what is counted of the bits."""
        return self.usage.plain()

    def take_counts(self, counts: Any) -> None:
        """Go on from what `counts` returned."""
        self.usage.take(counts)

    def _compress(self, x_B3HW: Tensor) -> Tensor:
        return self.encoder(x_B3HW)
