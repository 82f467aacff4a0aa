"""The language model, the vision towers and the projectors between them.

Legend: B batch, P seen pictures, S picture side, N feature tokens of a picture, C channels, T text+image sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vargpt_lightning.models import vision as towers
from vargpt_lightning.models.core.config import LanguageConfig, VARGPTConfig, VisionConfig
from vargpt_lightning.models.core.families import FAMILIES, MROPE, OURS
from vargpt_lightning.models.language.llama_network import Trunk
from vargpt_lightning.models.language.network import Network
from vargpt_lightning.models.vision.tower import own_projector
from vargpt_lightning.utils.errors import UserError


class LanguageModel(nn.Module):
    """A language model of any family; its tables stay one where they are tied, also when it gets memory.

    Fresh weights are those that transformers' causal language model draws from the same generator: normal with
    `initializer_range`, the head after all else. Names of parameters are transformers' too.

    Attributes:
        model: the network without its head: input embeddings, mask, positions and cache to last hidden states.
        lm_head: the head over the vocabulary.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model = self._network()
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=FAMILIES[config.family].head_bias)
        self._draw(self.lm_head)
        self.share_tables()

    def _network(self) -> Network:
        if self.config.family != OURS:
            from vargpt_lightning.models.language.family_network import FamilyTrunk

            return FamilyTrunk(self.config)
        trunk = Trunk(self.config)
        self._draw(trunk)
        return trunk

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """Return logits (B, T, V) over the vocabulary for tokens (B, T) of text."""
        return self.lm_head(self.model(self.embed(input_ids_BT)))

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """Return the network's inputs (B, T, C) for tokens of text."""
        return self.model.embed_tokens(input_ids_BT)

    @property
    def blocks(self) -> nn.ModuleList:
        """The network's layers: sharded, compiled and computed again one by one."""
        return self.model.layers

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of a block's linear layers, which adapters may stand beside."""
        block = self.blocks[0]
        names = [name.rpartition(".")[2] for name, part in block.named_modules() if isinstance(part, nn.Linear)]
        return tuple(names)

    @property
    def three_dimensional(self) -> bool:
        """Whether positions have three dimensions, of which seen pictures make use."""
        return self.config.family == MROPE

    @property
    def kernel(self) -> str:
        """The attention's kernel, by transformers' name."""
        return self.model.kernel

    @kernel.setter
    def kernel(self, name: str) -> None:
        self.model.kernel = name

    def restore_constants(self) -> None:
        """Tie what is one, and compute what no checkpoint holds."""
        self.share_tables()
        self.model.restore_constants()

    def share_tables(self) -> None:
        """Make the rows that are written those that are read, where the configuration says so."""
        if self.config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def _draw(self, part: nn.Module) -> None:
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> LanguageModel:
        super()._apply(fn, recurse)  # which makes a new parameter for each name, on another kind of device
        self.share_tables()
        return self


def build_vision_tower(config: VisionConfig) -> nn.Module | None:
    """Return the tower that the configuration names, or None for a model that sees no pictures."""
    if config.kind == towers.NONE:
        return None
    return towers.get(config.kind).build(config)


def build_vision_projector(config: VisionConfig, width: int) -> nn.Module | None:
    """Return what carries a tower's features to the language model's width; None for a model that sees no pictures.

    It is LLaVA-1.5's of two layers, unless the tower has its own.
    """
    if config.kind == towers.NONE:
        return None
    if (own := own_projector(towers.get(config.kind))) is not None:
        return own(config, width)
    return nn.Sequential(nn.Linear(config.channels, width), nn.GELU(), nn.Linear(width, width))


def projector_dtype(projector: nn.Module) -> torch.dtype:
    """Return the type that a projector takes: that of its first bias, which stays where its weights are packed."""
    return next(each.dtype for name, each in projector.named_parameters() if name.endswith("bias"))


class GenerationProjector(nn.Module):
    """Linear, GELU, Linear between the visual decoder's width and the language model's (VARGPT, section 3.1).

    Args:
        width_in, width_out: the inner width is that of the input.
        unused_layer_norm: hold the layer norm `ln_q` that the official checkpoints carry; the released code never
            applies it, so neither does this.
    """

    def __init__(self, width_in: int, width_out: int, unused_layer_norm: bool = False) -> None:
        super().__init__()
        if unused_layer_norm:
            self.ln_q = nn.LayerNorm(width_in, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width_in, width_in), nn.GELU(), nn.Linear(width_in, width_out))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return `x_BLC` carried from the one width to the other."""
        return self.mlp(x_BLC)


def build_generation_projectors(config: VARGPTConfig) -> tuple[nn.Module, nn.Module]:
    """Return what carries visual tokens into the language model, and what carries hidden states out of it.

    Where the two are shared they are one module.
    """
    if config.generation_projectors == "none":
        return nn.Identity(), nn.Identity()
    width, unused = config.language.width, config.unused_layer_norm
    into = GenerationProjector(config.decoder_width, width, unused)
    if config.generation_projectors == "shared":
        return into, into
    return into, GenerationProjector(width, config.decoder_width, unused)


def check_pictures(pixels_P3SS: Tensor, config: VisionConfig) -> None:
    """Raise UserError unless the pictures have the size that the tower takes."""
    expected = config.input_shape
    if tuple(pixels_P3SS.shape[1:]) != expected:
        raise UserError(f"pixel_values: got shape {tuple(pixels_P3SS.shape)}, expected (pictures, {expected})")
