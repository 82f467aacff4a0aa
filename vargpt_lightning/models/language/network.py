"""What a language model's network is to all else: the interface between our code and any family's.

Legend: B batch, n new tokens, C width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from vargpt_lightning.models.language.llama_network import Cache


class Network(nn.Module, ABC):
    """All of a language model but its head.

    Attributes:
        embed_tokens: rows of the vocabulary; called with ids, it gives the network's inputs.
        layers: the blocks. The attention of each is called `self_attn`, and gives its result and its weights.
    """

    embed_tokens: nn.Embedding
    layers: nn.ModuleList

    @property
    @abstractmethod
    def kernel(self) -> str:
        """Attention's kernel, by transformers' name; it may change between passes."""

    @kernel.setter
    @abstractmethod
    def kernel(self, name: str) -> None: ...

    @abstractmethod
    def forward(
        self, embeds_BnC: Tensor, mask: Any = None, positions_Bn: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Return the last hidden states (B, n, C) of input embeddings.

        Args:
            mask: as the attention's kernel takes it; None for causal attention.
            positions_Bn: positions in the sequence; None counts from 0.
            cache: of earlier tokens; with one, `mask` says which of its positions are seen.
        """

    @abstractmethod
    def restore_constants(self) -> None:
        """Compute what no checkpoint holds, such as rotary frequencies, where the weights are."""
