"""Image tokenizer: pictures to token maps of growing size and back (VAR's VQ-VAE, arXiv 2404.02905, section 3.2).

Parameter and buffer names equal those of the published VAR tokenizers. Pictures are in [-1, 1].

Legend: B batch, L tokens of all scales, l tokens of one scale, K scales, C code size, H and W height and width, s side
of one scale's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.convolutions import Decoder, Encoder, fast_format
from vargpt_lightning.models.tokenizer.quantizer import MultiScaleQuantizer, PhiSharing, rows_to_map
from vargpt_lightning.utils.errors import UserError


class TokenizerOutput(NamedTuple):
    """What a training step needs: pictures (B, 3, H, W), not clamped; the loss terms; the codes (B, L).

    ``commitment_loss`` is already weighted by beta, so that ``vq_loss`` is the sum of the two terms.
    """

    reconstruction: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    vq_loss: Tensor
    idx_BL: Tensor


class ImageTokenizer(nn.Module):
    """Multi-scale VQ-VAE whose defaults are those of VAR's published tokenizer (256 px, 680 tokens, 4096 codes).

    Args:
        scales: side lengths of the token maps; the last one times the down-sampling factor is the picture size.
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

    Raises:
        UserError: (a ValueError) for values outside of what is said above.
    """

    def __init__(
        self,
        *,
        scales: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
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
    ) -> None:
        super().__init__()
        counts = {
            "channels": channels,
            "residual_blocks": residual_blocks,
            "code_size": code_size,
            "vocabulary": vocabulary,
            "phi_count": phi_count,
            "patch": patch,
        }
        for key, value in counts.items():
            if value < 1:
                raise UserError(f"{key}: got {value!r}, expected a positive integer")
        if not channel_multipliers or min(channel_multipliers) < 1:
            raise UserError(f"channel_multipliers: got {channel_multipliers!r}, expected positive integers")
        if quant_kernel < 1 or quant_kernel % 2 == 0:
            raise UserError(f"quant_kernel: got {quant_kernel!r}, expected a positive odd integer")
        if abs(residual_ratio) > 1:
            raise UserError(f"residual_ratio: got {residual_ratio!r}, expected a share between 0 and 1")
        self.schedule = ScaleSchedule(tuple(scales))
        self.code_size = code_size
        self.vocabulary = vocabulary
        self.downsampling = patch * 2 ** (len(channel_multipliers) - 1)
        self.picture_size = self.schedule.final_size * self.downsampling
        stack = (channels, tuple(channel_multipliers), residual_blocks, code_size)
        self.encoder = Encoder(*stack, attention=attention, dropout=dropout, patch=patch)
        self.decoder = Decoder(*stack, attention=attention, dropout=dropout, patch=patch)
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
        self.quant_conv = nn.Conv2d(code_size, code_size, quant_kernel, padding=quant_kernel // 2)
        self.post_quant_conv = nn.Conv2d(code_size, code_size, quant_kernel, padding=quant_kernel // 2)

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return the features (B, C, H, W) that are quantized.

        Raises:
            UserError: (a ValueError) when the pictures have another shape than (B, 3, picture_size, picture_size).
        """
        size = self.picture_size
        if x_B3HW.dim() != 4 or tuple(x_B3HW.shape[1:]) != (3, size, size):
            raise UserError(f"pictures: got shape {tuple(x_B3HW.shape)}, expected (batch, 3, {size}, {size})")
        x_B3HW = fast_format(x_B3HW.to(self.quant_conv.weight.dtype), self.quant_conv.weight)
        return self.quant_conv(self.encoder(x_B3HW)).contiguous()

    def encode(self, x_B3HW: Tensor) -> Tensor:
        """Return the codes (B, L) of pictures, scale by scale."""
        with torch.no_grad():
            return self.quantize_features(self.features(x_B3HW))

    def encoding_state(self) -> dict[str, Tensor]:
        """Return the weights that codes depend on: neither the decoder's nor the record of hits."""
        idle = ("decoder.", "post_quant_conv.")
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(idle) and not name.endswith("ema_vocab_hit_SV")
        }

    @torch.no_grad()
    def quantize_features(self, f_BCHW: Tensor) -> Tensor:
        """Return the codes (B, L) of features (B, C, H, W)."""
        return torch.cat([step.idx_Bl for step in self.quantize.steps(f_BCHW)], dim=1)

    @torch.no_grad()
    def next_scale_inputs(self, idx_BL: Tensor) -> Tensor:
        """Return the teacher-forced inputs (B, L - first, C) of all scales but the first.

        Scale k + 1 is given what scales up to k reconstruct, resized to its own size (VAR, figure 4).
        """
        inputs = self.quantize.unroll(self._checked(idx_BL))[1]
        if not inputs:
            return self.quantize.codebook().new_zeros(idx_BL.shape[0], 0, self.code_size)
        return torch.cat(inputs, dim=1)

    def embed_codes(self, idx: Tensor) -> Tensor:
        """Return the code vectors of indices of any shape, with C appended to that shape."""
        return self.quantize.embed(idx)

    def empty_f_hat(self, batch: int) -> Tensor:
        """Return the zeros (B, C, H, W) from which :meth:`accumulate` starts."""
        side = self.schedule.final_size
        return self.quantize.codebook().new_zeros(batch, self.code_size, side, side)

    def accumulate(self, k: int, f_hat_BCHW: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add scale ``k``'s code vectors to the reconstructed features.

        ``h`` is a map (B, C, s, s), or the vectors of the scale's tokens (B, l, C). Returns the new f_hat and the next
        scale's input (B, l, C), None after the last scale. The given f_hat is left as it is.
        """
        return self.quantize.accumulate(k, f_hat_BCHW, rows_to_map(h) if h.dim() == 3 else h)

    @torch.no_grad()
    def f_hat_per_scale(self, idx_BL: Tensor) -> Tensor:
        """Return the reconstructed features after each scale, (K, B, C, H, W)."""
        return torch.stack(self.quantize.unroll(self._checked(idx_BL))[0])

    def decode(self, f_hat_BCHW: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of reconstructed features, clamped to [-1, 1]."""
        return self._draw(f_hat_BCHW).clamp(-1, 1)

    @torch.no_grad()
    def decode_indices(self, idx_BL: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of codes (B, L)."""
        return self.decode(self.quantize.unroll(self._checked(idx_BL))[0][-1])

    @torch.no_grad()
    def progressive(self, idx_BL: Tensor) -> list[Tensor]:
        """Return K batches of pictures (B, 3, H, W): what the scales up to each one show."""
        return [self.decode(f_hat_BCHW) for f_hat_BCHW in self.quantize.unroll(self._checked(idx_BL))[0]]

    def reconstruct(self, x_B3HW: Tensor) -> Tensor:
        """Return pictures encoded and decoded again."""
        return self.decode_indices(self.encode(x_B3HW))

    def forward(self, x_B3HW: Tensor) -> TokenizerOutput:
        """Reconstruct pictures for training; in training mode the hits of the codes are recorded."""
        f_hat_BCHW, codebook_loss, commitment_loss, idx_BL = self.quantize(self.features(x_B3HW))
        vq_loss = codebook_loss + commitment_loss
        return TokenizerOutput(self._draw(f_hat_BCHW), codebook_loss, commitment_loss, vq_loss, idx_BL)

    def usage_per_scale(self) -> list[float]:
        """Return for each scale the percentage of codes in use during recent training."""
        return self.quantize.usage_per_scale()

    def _draw(self, f_hat_BCHW: Tensor) -> Tensor:
        h_BCHW = self.post_quant_conv(f_hat_BCHW.to(self.post_quant_conv.weight.dtype))
        return self.decoder(h_BCHW).contiguous()

    def _checked(self, idx_BL: Tensor) -> Tensor:
        length = self.schedule.num_tokens
        if idx_BL.dim() != 2 or idx_BL.shape[1] != length:
            raise UserError(f"indices: got shape {tuple(idx_BL.shape)}, expected (batch, {length})")
        return idx_BL
