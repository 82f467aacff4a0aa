"""What the networks of vision transformers share: attention, feed-forward blocks, fresh weights, hidden states.

Parameters have the names under which the families' weights are published.

Legend: P seen pictures, S picture side, N tokens, H heads, D width of a head, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
    "silu": F.silu,
}
"""By transformers' names; `checks.ACTIVATIONS` repeats them for those who do without torch."""


class Phases(NamedTuple):
    """Cosines and sines (..., N, D) by which the last N positions of heads are turned, in 32 bits."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, angles: Tensor) -> Phases:
        """Return the phases of angles (..., N, D)."""
        return cls(angles.cos(), angles.sin())

    def turn(self, x_PHND: Tensor) -> Tensor:
        """Return heads turned; tokens before the last N, such as a class token, stay as they are."""
        before = x_PHND.shape[-2] - self.cos.shape[-2]
        head, rest = x_PHND.split([before, self.cos.shape[-2]], -2)
        one, other = rest.float().chunk(2, -1)
        turned = rest.float() * self.cos + torch.cat([-other, one], -1) * self.sin
        return torch.cat([head, turned.to(x_PHND.dtype)], -2)


def attend(q_PNC: Tensor, k_PNC: Tensor, v_PNC: Tensor, heads: int, phases: Phases | None, mask: Any = None) -> Tensor:
    """Return what each token takes of those that the mask (P, 1, N, N) lets it see, (P, N, C)."""
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q_PNC, k_PNC, v_PNC))
    if phases is not None:
        q, k = phases.turn(q), phases.turn(k)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Linear, activation, linear, under the names `fc1` and `fc2`."""

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = activation

    def forward(self, x_PNC: Tensor) -> Tensor:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x_PNC)))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), float(value)))

    def forward(self, x_PNC: Tensor) -> Tensor:
        return x_PNC * self.lambda1


class TransformerTower(nn.Module):
    """A vision transformer as a tower: its network is `model`, its layers are sharded and computed again one by one."""

    def __init__(self, model: nn.Module, blocks: str) -> None:
        super().__init__()
        self.model = model
        self._blocks = blocks

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's layers."""
        layers = self.get_submodule(self._blocks)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        """Return features (P, N, C) of pictures, normalised as the tower was trained."""
        features_PNC: Tensor = self.model(pixels_P3SS)
        return features_PNC


def hidden_state(blocks: Iterable[nn.Module], x_PNC: Tensor, layer: int | None, norm: nn.Module, *more: Any) -> Tensor:
    """Return a hidden state (P, N, C): what goes into the blocks has index 0; None is the last one, normalised."""
    blocks = list(blocks)
    wanted = len(blocks) if layer is None else layer % (len(blocks) + 1)
    state_PNC = x_PNC
    for number, block in enumerate(blocks, 1):
        x_PNC = block(x_PNC, *more)
        state_PNC = x_PNC if number == wanted else state_PNC
    return norm(state_PNC) if layer is None else state_PNC


def draw(network: nn.Module, deviation: float = 0.02) -> None:
    """Give a network's matrices fresh weights, in the order of its modules, and its biases zeros."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


def resized(table_GGC: Tensor, height: int, width: int) -> Tensor:
    """Return a table of positions for another number of patches, (height * width, C), by bicubic interpolation."""
    whole = table_GGC.permute(2, 0, 1)[None].float()
    table_CHW = F.interpolate(whole, (height, width), mode="bicubic", align_corners=False)[0]
    return table_CHW.flatten(1).T.to(table_GGC.dtype)
