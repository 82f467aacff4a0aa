"""LLaMA's network (arXiv 2302.13971), operation by operation as transformers computes it, without its imports.

Names of parameters are transformers' as well, so checkpoints of either fit the other.

Legend: B batch, n new tokens, S positions that are seen, C width, H heads, G key heads, D head dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vargpt_lightning.models.core.config import LanguageConfig
from vargpt_lightning.models.core.exact import KeepsFloat32
from vargpt_lightning.models.language.network import Network


class Cache(Protocol):
    """Keys and values of earlier tokens.

    Attributes:
        slots_Rn: where those of the new tokens go.
    """

    slots_Rn: Tensor

    def update(self, keys_BGnD: Tensor, values_BGnD: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values; return all that the new tokens may see, (B, G, S, D)."""


class Phases(NamedTuple):
    """Cosines and sines (B, 1, n, D) of each position's rotation."""

    cos: Tensor
    sin: Tensor


class RMSNorm(nn.Module):
    """x / rms(x) in float32, times a weight for each channel (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        exact = x.to(torch.float32)
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * exact.to(x.dtype)


class RotaryEmbedding(KeepsFloat32):
    """Rotary positions (arXiv 2104.09864) by frequencies in float32, whatever type and device the weights have.

    No checkpoint holds the frequencies. In bfloat16 a phase is off by more than a radian at position 1,000, and a
    model that was trained with one set of phases would be used with another: they are computed anew, by the CPU, at
    every change of the module, as when it gets memory.
    """

    in_float32 = ("inv_freq",)

    def __init__(self, dimension: int, base: float) -> None:
        super().__init__()
        self.dimension, self.base = dimension, base
        self.register_buffer("inv_freq", self._frequencies(), persistent=False)
        self.inv_freq: Tensor

    def _frequencies(self) -> Tensor:
        return 1.0 / (self.base ** (torch.arange(0, self.dimension, 2, dtype=torch.float) / self.dimension))

    def _apply(self, fn: Any, recurse: bool = True) -> RotaryEmbedding:
        super()._apply(fn, recurse)
        device = self.inv_freq.device
        with torch.device("meta" if device.type == "meta" else "cpu"):
            self._buffers["inv_freq"] = self._frequencies().to(device)
        return self

    def forward(self, x: Tensor, positions_Bn: Tensor) -> Phases:
        """Return the phases of positions, in the type of `x`."""
        half_BnD = positions_Bn[..., None].float() * self.inv_freq.to(x.device)
        angle_B1nD = torch.cat((half_BnD, half_BnD), dim=-1)[:, None]
        return Phases(angle_B1nD.cos().to(x.dtype), angle_B1nD.sin().to(x.dtype))


def rotate(x_BHnD: Tensor, phases: Phases) -> Tensor:
    """Return queries or keys turned by their positions."""
    one, other = x_BHnD.chunk(2, dim=-1)
    return x_BHnD * phases.cos + torch.cat((-other, one), dim=-1) * phases.sin


class Attention(nn.Module):
    """Attention with rotary positions; several query heads may share a key head (arXiv 2305.13245).

    The kernel is read from the whole network's `attention` at each pass. "sdpa" and "eager" are torch's; other names
    are transformers', which is imported for them.
    """

    is_causal = True

    def __init__(self, config: LanguageConfig, layer_idx: int, shared: Shared) -> None:
        super().__init__()
        heads, keys = config.heads, config.kv_heads or config.heads
        self.layer_idx, self.shared = layer_idx, shared
        self.head_dim = config.head_size
        self.num_key_value_groups = heads // keys
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.width, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, keys * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, keys * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, config.width, bias=False)

    def forward(
        self, x_BnC: Tensor, phases: Phases, mask: Any = None, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the result (B, n, C), and the weights (B, H, n, S) where the kernel gives them away ("eager")."""
        shape = (*x_BnC.shape[:-1], -1, self.head_dim)
        q_BHnD, k_BGnD, v_BGnD = (
            projection(x_BnC).view(shape).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BHnD, k_BGSD, v_BGSD = rotate(q_BHnD, phases), rotate(k_BGnD, phases), v_BGnD
        if cache is not None:
            k_BGSD, v_BGSD = cache.update(k_BGSD, v_BGSD, self.layer_idx)
        result_BnHD, weights_BHnS = self._attend(q_BHnD, k_BGSD, v_BGSD, mask)
        return self.o_proj(result_BnHD.flatten(2)), weights_BHnS

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> tuple[Tensor, Tensor | None]:
        rate = self.dropout if self.training else 0.0
        if self.shared.kernel not in ("sdpa", "eager"):
            from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

            attend: Any = ALL_ATTENTION_FUNCTIONS[self.shared.kernel]
            return attend(self, q, k, v, mask, dropout=rate, scaling=self.scaling)
        grouped = self.num_key_value_groups > 1
        in_kernel = self.shared.kernel == "sdpa" and mask is None and self.head_dim <= 256  # where the kernels have it
        if grouped and not in_kernel:
            k, v = (each.repeat_interleave(self.num_key_value_groups, dim=1) for each in (k, v))
        if self.shared.kernel == "sdpa":
            causal = mask is None and q.shape[2] > 1
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=rate,
                is_causal=causal,
                scale=self.scaling,
                enable_gqa=grouped and in_kernel,
            )
            return out.transpose(1, 2).contiguous(), None
        weights = torch.matmul(q, k.transpose(2, 3)) * self.scaling
        if mask is not None:
            weights = weights + mask
        weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
        weights = F.dropout(weights, rate, self.training)
        return torch.matmul(weights, v).transpose(1, 2).contiguous(), weights


class Shared:
    """What all layers read at each pass, and may change between passes.

    Attributes:
        kernel: the attention's, by transformers' name.
    """

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_BnC: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BnC)) * self.up_proj(x_BnC))


class Block(nn.Module):
    """Attention and feed-forward, each on normalised input and added to it.

    Attributes:
        gradient_checkpointing: whether its activations are computed again in the backward pass.
    """

    def __init__(self, config: LanguageConfig, layer_idx: int, shared: Shared) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer_idx, shared)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.gradient_checkpointing = config.checkpoint_activations

    def forward(self, x_BnC: Tensor, phases: Phases, mask: Any = None, cache: Cache | None = None) -> Tensor:
        x_BnC = x_BnC + self.self_attn(self.input_layernorm(x_BnC), phases, mask, cache)[0]
        return x_BnC + self.mlp(self.post_attention_layernorm(x_BnC))


class Trunk(Network):
    """All of the network but the head: embeddings, blocks, the last normalisation."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.shared = Shared(config.attention)
        # no padding row: transformers would keep that embedding at zero, the released weights do not
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config, index, self.shared) for index in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.rotary_emb = RotaryEmbedding(config.head_size, config.rope_theta)

    @property
    def kernel(self) -> str:
        """The attention's kernel, by transformers' name."""
        return self.shared.kernel

    @kernel.setter
    def kernel(self, name: str) -> None:
        self.shared.kernel = name

    def restore_constants(self) -> None:
        """Compute the rotary frequencies anew, where the embeddings are."""
        self.rotary_emb.to_empty(device=self.embed_tokens.weight.device)

    def forward(
        self, embeds_BnC: Tensor, mask: Any = None, positions_Bn: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Return the last hidden states (B, n, C) of input embeddings.

        Args:
            mask: as the attention's kernel takes it; None for causal attention.
            positions_Bn: positions in the sequence; None counts from 0.
            cache: of earlier tokens; with one, `mask` says which of its positions are seen.
        """
        if positions_Bn is None:
            positions_Bn = torch.arange(embeds_BnC.shape[1], device=embeds_BnC.device)[None]
        if mask is None:
            mask = causal_mask(self.shared.kernel, embeds_BnC)
        x_BnC, phases = embeds_BnC, self.rotary_emb(embeds_BnC, positions_Bn)
        for block in self.layers:
            if block.gradient_checkpointing and self.training:
                x_BnC = checkpoint(block, x_BnC, phases, mask, cache, use_reentrant=False)
            else:
                x_BnC = block(x_BnC, phases, mask, cache)
        return self.norm(x_BnC)


def causal_mask(kernel: str, embeds_BnC: Tensor) -> Any:
    """Return the mask of plain causal attention, None for a kernel that knows it by itself."""
    length, device = embeds_BnC.shape[1], embeds_BnC.device
    if kernel == "eager":
        hidden_nn = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        return torch.zeros_like(hidden_nn, dtype=embeds_BnC.dtype).masked_fill(
            hidden_nn, torch.finfo(embeds_BnC.dtype).min
        )
    if kernel == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(lambda b, h, query, key: key <= query, None, None, length, length, device=str(device))
    return None
