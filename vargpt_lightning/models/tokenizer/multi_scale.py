"""What all image tokenizers are: an encoder, codes of growing maps, and a decoder. Pictures are in [-1, 1].

Two kinds of codes stand behind this one interface: indices into a codebook (`image_tokenizer`), one number a token, and
bits (`bit_tokenizer`), as many numbers a token as it has bits.

Legend: B batch, L tokens of all scales, l tokens of one scale, K scales, C channels of a token's features, D numbers of
a token's code, H and W height and width of the finest map of features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.convolutions import NORM_GROUPS, Decoder, Encoder, fast_format
from vargpt_lightning.models.tokenizer.local_encoder import LocalEncoder
from vargpt_lightning.models.tokenizer.quantizer import Change
from vargpt_lightning.models.views import view_of
from vargpt_lightning.utils.errors import UserError


def check_counts(**counts: int) -> None:
    """Raise UserError, a ValueError, for the first of these that is not 1 or more."""
    for key, value in counts.items():
        if value < 1:
            raise UserError(f"{key}: got {value!r}, expected a positive integer")


GATHERED = ("encode", "encode_changed", "next_scale_inputs")
"""Methods that training calls; where the weights are sharded they are gathered around these."""


class TokenizerOutput(Protocol):
    """What a training step needs: pictures (B, 3, H, W), not clamped; the loss terms; the codes."""

    @property
    def reconstruction(self) -> Tensor: ...

    @property
    def vq_loss(self) -> Tensor:
        """The terms' weighted sum."""
        ...

    @property
    def terms(self) -> Mapping[str, Tensor]:
        """The single terms by name, for logs."""
        ...

    @property
    def codes(self) -> Tensor: ...


class MultiScaleTokenizer(nn.Module):
    """Pictures to codes of growing maps and back.

    Attributes:
        schedule: sizes of the token maps.
        code_size: C, channels of a token's features, which are a decoder's inputs.
        vocabulary: how many values each number of a code takes: V for indices, 2 for bits.
        downsampling: pixels a token in each direction.

    Args:
        scales: sizes of the token maps (see `ScaleSchedule`).
        channels: width of the convolutions at full resolution.
        channel_multipliers: width of each resolution in units of ``channels``; each step halves the resolution.
        residual_blocks: residual blocks a resolution (the decoder has one more).
        latent: channels of the features between encoder and decoder.
        attention: self-attention at the lowest resolution.
        dropout: dropout in the residual blocks.
        patch: side of the squares of pixels that the first convolution is given as channels, and the last one gives.
        side: positions of the features that a token has in each direction.
        local: features of each square of pixels by itself (see `LocalEncoder`).
        groups: see `convolutions.group_norm`.

    Raises:
        UserError: (a ValueError) for values outside of what is said above.
    """

    code_size: int
    vocabulary: int

    def __init__(
        self,
        *,
        scales: Sequence[Any],
        channels: int,
        channel_multipliers: Sequence[int],
        residual_blocks: int,
        latent: int,
        attention: bool,
        dropout: float,
        patch: int,
        side: int = 1,
        local: bool = False,
        groups: Sequence[int] = (NORM_GROUPS,),
    ) -> None:
        super().__init__()
        check_counts(channels=channels, residual_blocks=residual_blocks, code_size=latent, patch=patch)
        if not channel_multipliers or min(channel_multipliers) < 1:
            raise UserError(f"channel_multipliers: got {channel_multipliers!r}, expected positive integers")
        self.schedule = ScaleSchedule(tuple(scales))
        self.downsampling = side * patch * 2 ** (len(channel_multipliers) - 1)
        stack = (channels, tuple(channel_multipliers), residual_blocks, latent)
        self.encoder: Encoder | LocalEncoder
        if local:
            width, square = channels * channel_multipliers[-1], self.downsampling // side
            self.encoder = LocalEncoder(square, width, residual_blocks + 1, latent, dropout)
        else:
            self.encoder = Encoder(*stack, attention=attention, dropout=dropout, patch=patch, groups=groups)
        self.decoder = Decoder(*stack, attention=attention, dropout=dropout, patch=patch, groups=groups)

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a tokenizer of these very weights for other sizes of pictures."""
        view = view_of(self)
        view.schedule = schedule
        for name in GATHERED:  # a sharded tokenizer's are its own, which gather its weights
            if (own := self.__dict__.get(name)) is not None:
                setattr(view, name, partial(own, schedule=schedule))
        return view

    def _at(self, schedule: ScaleSchedule | None) -> Self:
        """This tokenizer, or where a schedule is given a view of it whose methods are the class's own."""
        if schedule is None:
            return self
        view = self.with_schedule(schedule)
        for name in GATHERED:
            view.__dict__.pop(name, None)
        return view

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Height and width of the pictures in pixels."""
        height, width = self.schedule.final_shape
        return height * self.downsampling, width * self.downsampling

    @property
    def picture_size(self) -> int:
        """Side of square pictures in pixels.

        Raises:
            UserError: they are no squares.
        """
        height, width = self.picture_shape
        if height != width:
            raise UserError(f"scales: pictures of {height} x {width} pixels; expected squares here")
        return height

    @property
    def numbers(self) -> int | None:
        """How many numbers the code of a token has; None for one, which then has no dimension of its own."""
        return None

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one picture's codes: (L,), or (L, D) where a code has D numbers."""
        return (self.schedule.num_tokens, *([self.numbers] if self.numbers else []))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.conv_in.weight.device

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return the features that are quantized.

        Raises:
            UserError: (a ValueError) when the pictures have another shape than (B, 3, *picture_shape).
        """
        height, width = self.picture_shape
        if x_B3HW.dim() != 4 or tuple(x_B3HW.shape[1:]) != (3, height, width):
            raise UserError(f"pictures: got shape {tuple(x_B3HW.shape)}, expected (batch, 3, {height}, {width})")
        weight = self.encoder.conv_in.weight
        return self._compress(fast_format(x_B3HW.to(weight.dtype), weight)).contiguous()

    @torch.no_grad()
    def encode(self, x_B3HW: Tensor, schedule: ScaleSchedule | None = None) -> Tensor:
        """Return the codes of pictures, scale by scale: (B, L), or (B, L, D) where a code has D numbers.

        With a `schedule` they are of its size, as `with_schedule` has it.
        """
        own = self._at(schedule)
        return own.quantize_features(own.features(x_B3HW))

    @torch.no_grad()
    def quantize_features(self, f_BCHW: Tensor) -> Tensor:
        """Return the codes of features (B, C, H, W)."""
        return torch.cat([codes for codes, _ in self.scales_of(f_BCHW)], dim=1)

    @torch.no_grad()
    def encode_changed(
        self, x_B3HW: Tensor, change: Change, schedule: ScaleSchedule | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return codes and next-scale inputs of pictures with codes changed on the way (see `changed`)."""
        own = self._at(schedule)
        return own.changed(own.features(x_B3HW), change)

    @torch.no_grad()
    def changed(self, f_BCHW: Tensor, change: Change) -> tuple[Tensor, Tensor]:
        """Return codes and next-scale inputs (B, L - first, C) of features whose codes are changed before they are fed
        on (see `quantizer.Change`)."""
        scales, f_hat_BCHW, inputs = self.scales_of(f_BCHW, change), self.empty_f_hat(len(f_BCHW)), []
        for k, (_, added_BCHW) in enumerate(scales[:-1]):
            f_hat_BCHW = f_hat_BCHW + added_BCHW
            inputs.append(self.next_input(k, f_hat_BCHW))
        return torch.cat([codes for codes, _ in scales], dim=1), self.joined(inputs, len(f_BCHW))

    def decode(self, f_hat_BCHW: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of reconstructed features, clamped to [-1, 1]."""
        return self.draw(f_hat_BCHW).clamp(-1, 1)

    @torch.no_grad()
    def decode_indices(self, codes: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of codes."""
        return self.decode(self.unroll(codes)[0][-1])

    @torch.no_grad()
    def progressive(self, codes: Tensor) -> list[Tensor]:
        """Return K batches of pictures (B, 3, H, W): what the scales up to each one show."""
        return [self.decode(f_hat_BCHW) for f_hat_BCHW in self.unroll(codes)[0]]

    def reconstruct(self, x_B3HW: Tensor) -> Tensor:
        """Return pictures encoded and decoded again."""
        return self.decode_indices(self.encode(x_B3HW))

    @torch.no_grad()
    def next_scale_inputs(self, codes: Tensor, schedule: ScaleSchedule | None = None) -> Tensor:
        """Return the teacher-forced inputs (B, L - first, C) of all scales but the first.

        Scale k + 1 is given what scales up to k reconstruct, resized to its own size (VAR, figure 4).
        """
        own = self._at(schedule)
        return own.joined(own.unroll(codes)[1], len(codes))

    def joined(self, inputs: list[Tensor], batch: int) -> Tensor:
        """Return the next-scale inputs of all scales in a row (B, L - first, C); none of a single scale."""
        if not inputs:
            return torch.zeros(batch, 0, self.code_size, device=self.device)
        return torch.cat(inputs, dim=1)

    @torch.no_grad()
    def f_hat_per_scale(self, codes: Tensor) -> Tensor:
        """Return the reconstructed features after each scale, (K, B, C, H, W)."""
        return torch.stack(self.unroll(codes)[0])

    def unroll(self, codes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features after each scale, K of (B, C, H, W), and the K - 1 next-scale inputs (B, l, C).

        Raises:
            UserError: the codes have another shape than this tokenizer's.
        """
        self._check(codes)
        f_hat_BCHW = self.empty_f_hat(len(codes))
        f_hats, inputs = [], []
        for k, tokens in enumerate(self.schedule.slices):
            f_hat_BCHW, input_BlC = self.accumulate(k, f_hat_BCHW, self.embed_codes(codes[:, tokens]))
            f_hats.append(f_hat_BCHW)
            if input_BlC is not None:
                inputs.append(input_BlC)
        return f_hats, inputs

    @abstractmethod
    def forward(self, x_B3HW: Tensor) -> TokenizerOutput:
        """Reconstruct pictures for training; in training mode the use of the codes is recorded."""

    @abstractmethod
    def scales_of(self, f_BCHW: Tensor, change: Change | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return for each scale the codes of features, and what these, or the changed ones, add to them."""

    @abstractmethod
    def next_input(self, k: int, f_hat_BCHW: Tensor) -> Tensor:
        """Return the input (B, l, C) of the scale after ``k``: the sum so far, resized to it."""

    @abstractmethod
    def embed_codes(self, codes: Tensor) -> Tensor:
        """Return the features of codes, C of them a token, of any number of tokens."""

    @abstractmethod
    def empty_f_hat(self, batch: int) -> Tensor:
        """Return the zeros (B, C, H, W) from which :meth:`accumulate` starts."""

    @abstractmethod
    def accumulate(self, k: int, f_hat_BCHW: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add the features of scale ``k``'s codes to the reconstructed features.

        ``h`` is the features of the scale's tokens (B, l, C), or a map of them. Returns the new f_hat and the next
        scale's input (B, l, C), None after the last scale. The given f_hat is left as it is.
        """

    @abstractmethod
    def draw(self, f_hat_BCHW: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of reconstructed features, as the decoder gives them."""

    @abstractmethod
    def encoding_state(self) -> dict[str, Tensor]:
        """Return the weights that codes depend on."""

    @abstractmethod
    def usage_per_scale(self) -> list[float]:
        """Return for each scale the percentage of codes in use during recent training."""

    @abstractmethod
    def counts(self) -> Any:
        """Return what training counts besides the weights, in plain values that `take_counts` takes up again."""

    @abstractmethod
    def take_counts(self, counts: Any) -> None:
        """Go on from what `counts` returned."""

    @abstractmethod
    def _compress(self, x_B3HW: Tensor) -> Tensor:
        """Return the features of pictures of the right shape and type."""

    def _check(self, codes: Tensor) -> None:
        if tuple(codes.shape[1:]) != self.code_shape:
            words = ", ".join(map(str, self.code_shape))
            raise UserError(f"indices: got shape {tuple(codes.shape)}, expected (batch, {words})")
