"""torch-fidelity's Inception network gone through faster on processors, without a changed bit in its features.

Its time beside convolutions goes into poolings and a resize that are slow in torch's plain layout, and into memory that
is taken and given back. The same sums in the same order are had from oneDNN's poolings, from a resize that goes along
rows alone, and from a few pictures at a time, whose layers' outputs are small enough for memory to be used again.

Shapes: B pictures, C colours or channels, H height, W width, D feature channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Modules up to each layer that can be asked for.
_STEM = {
    "64": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    "192": ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
}
_BODY = {
    "768": tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
    "2048": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}
_UNBIASED, _LOGITS = "logits_unbiased", "logits"
# Pictures at a time. torch has other 1x1 convolutions for single pictures, and others again for less than 16 of them:
# no part is of one unless the batch is, and in the body none is below 16 unless the batch is.
_STEM_PART, _BODY_PART = 4, 16
_POOLS = (torch.nn.functional.max_pool2d, torch.nn.functional.avg_pool2d)

Values = dict[str, Tensor]


def inception_pass(
    network: Any, pictures_B3HW: Tensor, resize: Callable[[Tensor], Tensor], layers: Collection[str]
) -> Values:
    """Features by layer, (B, D), as the network's own forward gives them.

    Args:
        network: torch-fidelity's FeatureExtractorInceptionV3.
        resize: brings pictures to the network's size, float32 in 0..255.
        layers: the wanted ones; the network is gone through as far as the last of them.
    """
    deep = not set(layers) <= _STEM.keys()
    on_cpu = pictures_B3HW.device.type == "cpu"
    parts = (_STEM_PART, _BODY_PART) if on_cpu else (len(pictures_B3HW),) * 2

    def stem(part_B3HW: Tensor) -> Values:
        return _through(network, (resize(part_B3HW) - 128) / 128, _STEM, layers, "places" if deep else "")

    def body(part_BCHW: Tensor) -> Values:
        return _through(network, part_BCHW, _BODY, {*layers, "2048"} if {_UNBIASED, _LOGITS} & {*layers} else layers)

    with QuickPools():
        found = _by_parts(stem, pictures_B3HW, parts[0])
        if deep:
            found |= _by_parts(body, found.pop("places"), parts[1])
    if _UNBIASED in layers:
        found[_UNBIASED] = found["2048"].mm(network.fc.weight.T)
        found[_LOGITS] = found[_UNBIASED] + network.fc.bias
    elif _LOGITS in layers:
        found[_LOGITS] = network.fc(found["2048"])
    return {layer: found[layer] for layer in layers}


def _through(
    network: Any, values_BCHW: Tensor, stretch: Mapping[str, tuple[str, ...]], layers: Collection[str], last: str = ""
) -> Values:
    """Means over places by layer as far as one is wanted; under the name `last`, if any, what the stretch ends with."""
    found: Values = {}
    wanted = [layer for layer in stretch if layer in layers]
    for layer, modules in stretch.items():
        if not last and len(found) == len(wanted):
            break
        for module in modules:
            values_BCHW = getattr(network, module)(values_BCHW)
        if layer in wanted:
            found[layer] = torch.nn.functional.adaptive_avg_pool2d(values_BCHW, 1).flatten(1)
    return found | {last: values_BCHW} if last else found


def _by_parts(passed: Callable[[Tensor], Values], batch: Tensor, at_once: int) -> Values:
    """What a batch becomes in parts of about as many, and of as many at least where `at_once` is 16."""
    count = len(batch) // at_once if at_once >= _BODY_PART else -(-len(batch) // at_once)
    found = [passed(part) for part in batch.tensor_split(max(1, count))]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


class QuickPools(TorchFunctionMode):
    """Within it the poolings of plain float32 tensors are oneDNN's, where torch has it; values are the same."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _POOLS and torch.backends.mkldnn.is_available() and _plain(args[0]):
            return func(args[0].to_mkldnn(), *args[1:], **given).to_dense()
        return func(*args, **given)


def _plain(value: Any) -> bool:
    ours = isinstance(value, Tensor) and value.device.type == "cpu" and value.dtype == torch.float32
    return ours and value.layout == torch.strided and value.is_contiguous()


def resize_as_tensorflow(levels_BCHW: Tensor, side: int) -> Tensor:
    """Bilinear resize of uint8 pictures as TensorFlow 1 does it, (B, C, side, side) float32 in 0..255.

    Bit by bit torch-fidelity's `interpolate_bilinear_2d_like_tensorflow1x`.
    """
    device = levels_BCHW.device
    low, high, share = _neighbours(levels_BCHW.shape[2], side, device)
    rows, places = torch.cat([low, high]).unique(return_inverse=True)  # of those that are looked at
    # whole rows are fetched several times faster than single columns, hence the turns
    turned_BCWH = levels_BCHW.index_select(2, rows).transpose(2, 3).contiguous().float()
    wide_BCHW = _between(turned_BCWH, *_neighbours(levels_BCHW.shape[3], side, device)).transpose(2, 3).contiguous()
    return _between(wide_BCHW, places[:side], places[side:], share)


def _neighbours(size: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each new place the old ones before and behind it, and how far it is from the first to the second."""
    at = torch.arange(side, dtype=torch.float32, device=device) * torch.tensor(size / side, dtype=torch.float32)
    low = at.long()
    return low, (low + 1).clamp_max(size - 1), at - low.float()


def _between(values_BCHW: Tensor, low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Rows between those at `low` and `high`."""
    first_BCHW = values_BCHW.index_select(2, low)
    return values_BCHW.index_select(2, high).sub_(first_BCHW).mul_(share[:, None]).add_(first_BCHW)
