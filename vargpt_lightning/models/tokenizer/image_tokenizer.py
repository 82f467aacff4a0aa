"""Image tokenizer with a codebook: VAR's multi-scale VQ-VAE (arXiv 2404.02905, section 3.2).

Parameter and buffer names equal those of the published VAR tokenizers. Pictures are in [-1, 1].

Legend: B batch, L tokens of all scales, l tokens of one scale, C code size, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer, check_counts
from vargpt_lightning.models.tokenizer.quantizer import Change, MultiScaleQuantizer, PhiSharing, rows_to_map
from vargpt_lightning.utils.errors import UserError


class IndexOutput(NamedTuple):
    """What a training step needs: pictures (B, 3, H, W), not clamped; the loss terms; the codes (B, L).

    ``commitment_loss`` is already weighted by beta, so that ``vq_loss`` is the sum of the two terms.
    """

    reconstruction: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    vq_loss: Tensor
    idx_BL: Tensor

    @property
    def terms(self) -> dict[str, Tensor]:
        """The loss terms by name."""
        return {"codebook_loss": self.codebook_loss, "commitment_loss": self.commitment_loss}

    @property
    def codes(self) -> Tensor:
        """The codes (B, L)."""
        return self.idx_BL


class ImageTokenizer(MultiScaleTokenizer):
    """Multi-scale VQ-VAE whose defaults are those of VAR's published tokenizer (256 px, 680 tokens, 4096 codes).

    Args:
        scales: sizes of the token maps (see `ScaleSchedule`); the last one times `downsampling` is the pictures' size.
            Other schedules of as many scales serve the same weights (`with_schedule`).
        channels: width of the convolutions at full resolution.
        channel_multipliers: width of each resolution in units of ``channels``; each step halves the resolution.
        residual_blocks: residual blocks a resolution (the decoder has one more).
        code_size: C, dimensions of a code.
        vocabulary: V, number of codes.
        beta: weight of the commitment term.
        residual_ratio: share of the convolution in a phi blend; 0 turns the blends off.
        phi: number of blends: one for all scales ("shared"), ``phi_count`` ("partial"), one for each ("separate").
        phi_count: number of blends if "partial".
        normalize_codes: choose codes by cosine similarity instead of distance.
        attention: self-attention at the lowest resolution.
        quant_kernel: kernel size of the convolutions before and after the quantizer, odd.
        dropout: dropout in the residual blocks.
        patch: side of the squares of pixels that the first convolution is given as channels, and the last one gives.
        local: features of each square of pixels by itself; the convolution before the quantizer is then 1 x 1.

    Raises:
        UserError: (a ValueError) for values outside of what is said above.
    """

    def __init__(
        self,
        *,
        scales: Sequence[Any] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        channels: int = 160,
        channel_multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        residual_blocks: int = 2,
        code_size: int = 32,
        vocabulary: int = 4096,
        beta: float = 0.25,
        residual_ratio: float = 0.5,
        phi: PhiSharing = "partial",
        phi_count: int = 4,
        normalize_codes: bool = False,
        attention: bool = True,
        quant_kernel: int = 3,
        dropout: float = 0.0,
        patch: int = 1,
        local: bool = False,
    ) -> None:
        super().__init__(
            scales=scales,
            channels=channels,
            channel_multipliers=channel_multipliers,
            residual_blocks=residual_blocks,
            latent=code_size,
            attention=attention,
            dropout=dropout,
            patch=patch,
            local=local,
        )
        check_counts(vocabulary=vocabulary, phi_count=phi_count)
        if quant_kernel < 1 or quant_kernel % 2 == 0:
            raise UserError(f"quant_kernel: got {quant_kernel!r}, expected a positive odd integer")
        if abs(residual_ratio) > 1:
            raise UserError(f"residual_ratio: got {residual_ratio!r}, expected a share between 0 and 1")
        self.code_size, self.vocabulary = code_size, vocabulary
        self.quantize = MultiScaleQuantizer(
            self.schedule,
            code_size,
            vocabulary,
            beta=beta,
            residual_ratio=residual_ratio,
            phi=phi,
            phi_count=phi_count,
            normalize_codes=normalize_codes,
        )
        before = 1 if local else quant_kernel
        self.quant_conv = nn.Conv2d(code_size, code_size, before, padding=before // 2)
        self.post_quant_conv = nn.Conv2d(code_size, code_size, quant_kernel, padding=quant_kernel // 2)

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a tokenizer of these very weights for other sizes of pictures.

        Raises:
            UserError: the schedule has another number of scales, each of which has its blend and its record of hits.
        """
        if schedule.num_scales != self.quantize.schedule.num_scales:
            own = self.quantize.schedule.num_scales
            raise UserError(f"scales: got {schedule.num_scales} of them, expected {own} as the image tokenizer has")
        return super().with_schedule(schedule)

    def encoding_state(self) -> dict[str, Tensor]:
        """Return the weights that codes depend on: neither the decoder's nor the record of hits."""
        idle = ("decoder.", "post_quant_conv.")
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(idle) and not name.endswith("ema_vocab_hit_SV")
        }

    def scales_of(self, f_BCHW: Tensor, change: Change | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return the codes (B, l) of each scale and what they, or the changed ones, add to the features."""
        return [(step.idx_Bl, step.added_BCHW) for step in self.quantize.steps(f_BCHW, change, self.schedule)]

    def next_input(self, k: int, f_hat_BCHW: Tensor) -> Tensor:
        """Return the input (B, l, C) of the scale after ``k``."""
        return self.quantize.next_input(k, f_hat_BCHW, self.schedule)

    def embed_codes(self, idx: Tensor) -> Tensor:
        """Return the code vectors of indices of any shape, with C appended to that shape."""
        return self.quantize.embed(idx)

    def empty_f_hat(self, batch: int) -> Tensor:
        """Return the zeros (B, C, H, W) from which :meth:`accumulate` starts."""
        return self.quantize.codebook().new_zeros(batch, self.code_size, *self.schedule.final_shape)

    def accumulate(self, k: int, f_hat_BCHW: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`MultiScaleTokenizer.accumulate`; ``h`` may be a map (B, C, h, w)."""
        h_BChw = rows_to_map(h, self.schedule.shapes[k]) if h.dim() == 3 else h
        return self.quantize.accumulate(k, f_hat_BCHW, h_BChw, self.schedule)

    def forward(self, x_B3HW: Tensor) -> IndexOutput:
        """Reconstruct pictures for training; in training mode the hits of the codes are recorded."""
        f_hat_BCHW, codebook_loss, commitment_loss, idx_BL = self.quantize(self.features(x_B3HW), self.schedule)
        vq_loss = codebook_loss + commitment_loss
        return IndexOutput(self.draw(f_hat_BCHW), codebook_loss, commitment_loss, vq_loss, idx_BL)

    def draw(self, f_hat_BCHW: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of reconstructed features, not clamped."""
        h_BCHW = self.post_quant_conv(f_hat_BCHW.to(self.post_quant_conv.weight.dtype))
        return self.decoder(h_BCHW).contiguous()

    def usage_per_scale(self) -> list[float]:
        """Return for each scale the percentage of codes in use during recent training."""
        return self.quantize.usage_per_scale()

    def counts(self) -> list[float | int | None]:
        """Return how often the record of hits was updated, and the vectors of the latest batch."""
        return [self.quantize.hit_updates, self.quantize.vectors_per_scale]

    def take_counts(self, counts: Any) -> None:
        """Go on from what `counts` returned; the record's buffer alone would be mixed as at its beginning."""
        self.quantize.hit_updates, self.quantize.vectors_per_scale = counts

    def _compress(self, x_B3HW: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x_B3HW))
