"""open_clip's vision transformers gone through faster: what is not a matrix product is spared or done in place.

A network is gone through a few pictures at a time, so that memory is used again; attention is torch's fused one; the
last block is computed for the class token alone, which is all that an embedding is made of. Embeddings equal those of
the library's own forward up to rounding.

Shapes: B pictures, C colours, H height, W width, T tokens, D channels, N heads, K channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_AT_ONCE = 4  # pictures; the widest layers' outputs of more are fetched from the system anew each time
_QUICK = 1.702  # in QuickGELU, x * sigmoid(1.702 x)


def known(model: Any) -> bool:
    """Whether `embed` can go through a model's picture tower: a plain transformer that embeds its class token."""
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, VisionTransformer

    network = model.visual
    return (
        type(model) in (CLIP, CustomTextCLIP)
        and type(network) is VisionTransformer
        and network.attn_pool is None
        and network.pool_type == "tok"
        and not network.output_tokens
        and network.proj is not None
        and network.conv1.weight.dtype == torch.float32
        and all(
            type(block) is ResidualAttentionBlock
            and block.attn.in_proj_weight is not None
            and type(block.ls_1) is type(block.ls_2) is nn.Identity
            and type(block.ln_1) is type(block.ln_2) is LayerNorm
            and type(block.mlp.gelu) in (QuickGELU, nn.GELU)
            for block in network.transformer.resblocks
        )
    )


def embed(network: Any, pictures_BCHW: Tensor) -> Tensor:
    """Embeddings (B, D) of preprocessed pictures by the tower of a `known` model, in evaluation mode, in inference."""
    if not len(pictures_BCHW):
        return network(pictures_BCHW)
    parts = pictures_BCHW.tensor_split(-(-len(pictures_BCHW) // _AT_ONCE))
    return torch.cat([_embed(network, part_BCHW) for part_BCHW in parts])


def _embed(network: Any, pictures_BCHW: Tensor) -> Tensor:
    x_BTD = network._embeds(pictures_BCHW)
    *blocks, last = network.transformer.resblocks
    for block in blocks:
        x_BTD = _mlp(block, _attend(block, x_BTD, x_BTD.shape[1]))
    x_B1D = _mlp(last, _attend(last, x_BTD, 1))
    return network.ln_post(x_B1D[:, 0]) @ network.proj


def _attend(block: Any, x_BTD: Tensor, count: int) -> Tensor:
    """Attention of the first `count` tokens to all, added to these; `x_BTD` may be overwritten."""
    attention = block.attn
    normed_BTD = block.ln_1(x_BTD)
    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, x_BTD.shape[2]
    if count == x_BTD.shape[1]:
        asked, others = nn.functional.linear(normed_BTD, weight, bias).split((width, 2 * width), dim=2)
    else:
        asked = nn.functional.linear(normed_BTD[:, :count], weight[:width], bias[:width])
        others = nn.functional.linear(normed_BTD, weight[width:], bias[width:])
    query_BNTK, key_BNTK, value_BNTK = (
        each.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for each in (asked, *others.chunk(2, dim=2))
    )
    found_BNTK = nn.functional.scaled_dot_product_attention(query_BNTK, key_BNTK, value_BNTK)
    out = attention.out_proj
    return _add_product(x_BTD[:, :count], found_BNTK.transpose(1, 2).flatten(2), out.weight, out.bias)


def _mlp(block: Any, x_BTD: Tensor) -> Tensor:
    first, activation, second = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    rows_RD = block.ln_2(x_BTD).flatten(0, 1)
    if isinstance(activation, nn.GELU):
        hidden_RD = activation(torch.addmm(first.bias, rows_RD, first.weight.T))
        return _add_product(x_BTD, hidden_RD, second.weight, second.bias)
    # x sigmoid(1.702 x) is silu(1.702 x) / 1.702, and a product takes a factor for nothing
    hidden_RD = torch.addmm(first.bias, rows_RD, first.weight.T, beta=_QUICK, alpha=_QUICK)
    nn.functional.silu(hidden_RD, inplace=True)
    return _add_product(x_BTD, hidden_RD, second.weight, second.bias, 1 / _QUICK)


def _add_product(x_BTD: Tensor, values: Tensor, weight_DE: Tensor, bias_D: Tensor, factor: float = 1.0) -> Tensor:
    """A linear layer's output added to x, in the memory of x where it can be."""
    sum_BTD = x_BTD.add_(bias_D) if x_BTD.is_contiguous() else x_BTD + bias_D
    rows_RD = sum_BTD.view(-1, sum_BTD.shape[2])
    rows_RD.addmm_(values.reshape(len(rows_RD), -1), weight_DE.T, alpha=factor)
    return sum_BTD
