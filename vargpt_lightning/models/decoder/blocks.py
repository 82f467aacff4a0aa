"""The blocks of the next-scale transformer: attention and feed-forward, modulated by a condition (AdaLN).

Shapes: B batch, L visual tokens of all scales or of one, C width, D width of the condition (= C); 16C and 12C are six
or two modulation vectors, the same for all tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vargpt_lightning.models.decoder.attention import LayerCache, ScaleSelfAttention
from vargpt_lightning.models.decoder.lean import Modulated, gated_residual, gelu_linear
from vargpt_lightning.models.parts.base import Branch


class Condition(NamedTuple):
    """What steers the modulation: the class embedding, and the six rows all blocks share when they share them."""

    embedding_BD: Tensor
    shared_B16C: Tensor | None = None

    def of(self, rows: slice | Sequence[int]) -> Condition:
        """Return the condition of some rows."""
        return Condition(self.embedding_BD[rows], None if self.shared_B16C is None else self.shared_B16C[rows])


class FeedForward(nn.Module):
    """Two linear layers around a GELU (tanh form)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, modulated: Modulated) -> Tensor:
        return self.drop(gelu_linear(modulated.through(self.fc1), self.fc2))


class DropPath(nn.Module):
    """Drops a residual branch of whole samples in training, and scales the kept ones up (arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x_BLC: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x_BLC
        keep_B11 = x_BLC.new_empty(len(x_BLC), 1, 1).bernoulli_(1 - self.rate)
        return x_BLC * keep_B11.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class SharedModulation(nn.Linear):
    """One projection of the condition to six modulation rows, for all blocks."""

    def forward(self, cond_BD: Tensor) -> Tensor:
        return super().forward(cond_BD).unflatten(-1, (1, 6, -1))


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated by the condition (AdaLN; VAR, section 3.3)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
        norm_eps: float,
        shared_adaln: bool,
        qk_norm: bool,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.attn = ScaleSelfAttention(
            width, heads, qk_norm=qk_norm, dropout=dropout, attention_dropout=attention_dropout
        )
        self.ffn = FeedForward(width, round(width * mlp_ratio), dropout)
        self.ln_wo_grad = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.shared_adaln = shared_adaln
        if shared_adaln:
            self.ada_gss = nn.Parameter(torch.empty(1, 1, 6, width))
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    @torch.no_grad()
    def damp_parameters(self, depth: int) -> None:
        """Gives a fresh block nearly closed gates, half the modulation, and branches that shrink with the depth."""
        width = self.attn.proj.in_features
        self.attn.q_bias.zero_()
        self.attn.v_bias.zero_()
        if self.attn.qk_norm:
            self.attn.scale_mul_1H11.fill_(math.log(4.0))
        self.attn.proj.weight.div_(math.sqrt(2 * depth))
        self.ffn.fc2.weight.div_(math.sqrt(2 * depth))
        if self.shared_adaln:
            rows_6C = self.ada_gss.normal_(std=width**-0.5).view(6, width)
        else:
            rows_6C = self.ada_lin[-1].get_parameter("weight").view(6, -1)
        rows_6C[:2] *= 1e-5
        rows_6C[2:] *= 0.5

    def modulation(self, cond: Condition) -> Tensor:
        """Gates, scales and shifts of the two branches: (B, 1, 6, C)."""
        if self.shared_adaln:
            assert cond.shared_B16C is not None
            return self.ada_gss + cond.shared_B16C
        return self.ada_lin(cond.embedding_BD).unflatten(-1, (1, 6, -1))

    def forward(
        self,
        x_BLC: Tensor,
        cond: Condition,
        slices: tuple[slice, ...],
        mask_LL: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Transforms the tokens of `slices`: with a cache one scale, and scale 0 renews the modulation kept there."""
        if cache is None:
            rows_B16C = self.modulation(cond)
        else:
            if slices[0].start == 0 or cache.modulation_B16C is None:
                cache.modulation_B16C = self.modulation(cond)
            rows_B16C = cache.modulation_B16C
        gate1, gate2, scale1, scale2, shift1, shift2 = rows_B16C.unbind(2)

        def attend(some_BLC: Tensor) -> Tensor:
            return self.attn(Modulated(some_BLC, self.ln_wo_grad, scale1, shift1), slices, mask_LL, cache)

        def feed(some_BLC: Tensor) -> Tensor:
            return self.ffn(Modulated(some_BLC, self.ln_wo_grad, scale2, shift2))

        x_BLC = gated_residual(x_BLC, branched("attention", attend, x_BLC, cache), gate1, self.drop_path)
        return gated_residual(x_BLC, branched("feed_forward", feed, x_BLC, cache), gate2, self.drop_path)


def branched(branch: Branch, run: Callable[[Tensor], Tensor], x_BLC: Tensor, cache: LayerCache | None) -> Tensor:
    """Run a branch of a block: for all tokens, or for those that a part of the sampler keeps."""
    if cache is None:
        return run(x_BLC)
    kept = cache.kept(branch, x_BLC)
    y_BLC = run(x_BLC) if kept is None else kept.restore(run(kept.take(x_BLC)))
    cache.restored(branch, y_BLC)
    return y_BLC


class HeadNorm(nn.Module):
    """The modulated normalisation before the head."""

    def __init__(self, width: int, norm_eps: float) -> None:
        super().__init__()
        self.ln_wo_grad = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def modulation(self, cond: Condition) -> Tensor:
        """Scale and shift: (B, 1, 2, C)."""
        return self.ada_lin(cond.embedding_BD).unflatten(-1, (1, 2, -1))

    def forward(self, x_BLC: Tensor, rows_B12C: Tensor) -> Tensor:
        scale_B1C, shift_B1C = rows_B12C.unbind(2)
        return Modulated(x_BLC, self.ln_wo_grad, scale_B1C, shift_B1C).tokens()
