"""What all decoders of drawn pictures are: a condition and the codes so far in, logits of the next scale's codes out.

Shapes: B batch, L visual tokens of all scales, l tokens of one scale, C width, V logits of a token; in inputs_BLC and
input_BlC, C is the channels of a token's features.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.losses import ImageLoss
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.shared_random import Draws
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.models.views import view_of


class PictureDecoder(nn.Module):
    """A next-scale transformer, by itself or behind a language model's hidden states.

    By itself, `forward` trains it and `generate` draws. Behind a language model, `embed_inputs` or `embed_scale` make
    what goes in there, and `decode` takes what came out in their place.

    Attributes:
        schedule: sizes of the token maps.
        depth, width, heads: of the blocks.
    """

    schedule: ScaleSchedule
    depth: int
    width: int
    heads: int

    @torch.no_grad()
    def start_parameters(self) -> float:
        """Fill linear layers and embeddings with a normal distribution; return its deviation, sqrt(1 / (3 width))."""
        std = math.sqrt(1 / self.width / 3)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        return std

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a decoder of these very weights for other sizes of pictures.

        Raises:
            UserError: the schedule has more scales than the decoder has embeddings for.
        """
        view = view_of(self)
        view.schedule = schedule
        return view

    @abstractmethod
    def layers(self) -> list[Any]:
        """Return all blocks in their order."""

    @abstractmethod
    def condition(self, labels_B: Tensor) -> Any:
        """What steers every block for these labels."""

    @abstractmethod
    def drop_labels(self, labels_B: Tensor, generator: Draws = None) -> Tensor:
        """Replaces labels by the dropped condition's at random."""

    @abstractmethod
    def embed_inputs(self, labels_B: Any, inputs_BLC: Tensor) -> Tensor:
        """Start and word embeddings of the whole sequence, with what else belongs to a token: x_BLC.

        In place of labels a decoder may take what its `condition` made.
        """

    @abstractmethod
    def embed_scale(self, k: int, labels_B: Tensor | None, input_BlC: Tensor | None) -> Tensor:
        """One scale's part of `embed_inputs`: needs labels for k = 0, features otherwise."""

    @abstractmethod
    def decode(self, x_BLC: Tensor, cond: Any, cache: Any = None, k: int | None = None) -> Tensor:
        """Logits_BLV of all tokens, or with a cache of those of scale k."""

    @abstractmethod
    def loss(self, logits_BLV: Tensor, codes: Tensor) -> ImageLoss:
        """The loss of codes (B, L), or (B, L, D) where a token has D numbers."""

    @abstractmethod
    def token_losses(self, logits_BLV: Tensor, codes: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Each token's loss (B, L)."""

    @abstractmethod
    def log_probabilities(self, logits_BLV: Tensor, codes: Tensor) -> Tensor:
        """Each token's log-probability (B, L) float32, the sum over its numbers."""

    @abstractmethod
    def averaged(self, losses_BL: Tensor) -> Tensor:
        """The loss of a batch, from each token's."""

    @abstractmethod
    def forward(self, labels_B: Tensor, inputs_BLC: Tensor, generator: Draws = None) -> Tensor:
        """Logits_BLV of pictures by themselves, with conditions dropped in training."""

    @abstractmethod
    def new_cache(self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Any:
        """An empty cache for `batch` rows, whose `layers` hold `keys_BHLD` and `values_BHLD`."""

    @abstractmethod
    def generate(
        self,
        tokenizer: MultiScaleTokenizer,
        labels_B: Tensor,
        *,
        sampling: SamplingSettings,
        generator: Generators = None,
        keep_logits: bool = False,
    ) -> Drawing:
        """Draws one picture per label, for `tokenizer.decode(drawing.f_hat_BCHW)` to show. Expects evaluation mode."""
