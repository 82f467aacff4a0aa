"""The language model, the vision towers and the projectors between them, on transformers.

Legend: B batch, P seen pictures, S picture side, N feature tokens of a picture, C channels, T text+image sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vargpt_lightning.models import vision as towers
from vargpt_lightning.models.core.config import LanguageConfig, TokenIds, VARGPTConfig, VisionConfig
from vargpt_lightning.utils.errors import UserError


class LanguageModel(LlamaForCausalLM):
    """A LLaMA whose tables stay one where they are tied, also when it gets memory or other tensors."""

    def share_tables(self) -> None:
        """Make the rows that are written those that are read, where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def _apply(self, fn: Any, recurse: bool = True) -> LanguageModel:
        super()._apply(fn, recurse)  # which makes a new parameter for each name, on another kind of device
        self.share_tables()
        return self


def build_language_model(config: LanguageConfig, tokens: TokenIds) -> LanguageModel:
    """Return a LLaMA with fresh weights (normal with `initializer_range`, as transformers does it)."""
    llama = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        attention_dropout=config.attention_dropout,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=tokens.bos,
        eos_token_id=tokens.eos,
        # No padding row: transformers would keep that embedding at zero, the released weights do not.
        pad_token_id=None,
        use_cache=False,
    )
    llama._attn_implementation = config.attention
    model = LanguageModel(llama)
    model.model.rotary_emb = ExactRotaryEmbedding(llama)
    if config.checkpoint_activations:
        # The newer name; transformers 5.20 has the older one alone, which version 6 is to drop.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


class ExactRotaryEmbedding(LlamaRotaryEmbedding):
    """Rotary positions by frequencies in float32, whatever type and device the weights are brought to.

    No checkpoint holds the frequencies. In bfloat16 a phase is off by more than a radian at position 1,000, and a
    model that was trained with one set of phases would be used with another: they are computed anew, by the CPU, at
    every change of the module, as when it gets memory.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> ExactRotaryEmbedding:
        super()._apply(fn, recurse)
        device = self.inv_freq.device
        with torch.device("meta" if device.type == "meta" else "cpu"):
            exact = LlamaRotaryEmbedding(self.config)
        for name, buffer in exact.named_buffers():
            self._buffers[name] = buffer.to(device)
        return self


def build_vision_tower(config: VisionConfig) -> nn.Module | None:
    """Return the tower that the configuration names, or None for a model that sees no pictures."""
    if config.kind == towers.NONE:
        return None
    return towers.get(config.kind).build(config)


def build_vision_projector(channels: int, width: int) -> nn.Sequential:
    """Return LLaVA-1.5's two-layer projector from the tower's channels to the language model's width."""
    return nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))


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
    expected = (3, config.picture_size, config.picture_size)
    if tuple(pixels_P3SS.shape[1:]) != expected:
        raise UserError(f"pixel_values: got shape {tuple(pixels_P3SS.shape)}, expected (pictures, {expected})")
