"""3x3 convolutions with fewer products, for large maps on CPU that need no gradient.

Winograd's F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308, section 4.1) takes 16 products for four pixels in place of 36.
Its transforms add and halve only, so that rounding stays that of a convolution; on CPU they cost little where a few
rows of tiles at a time stay in the cache.

Legend: B batch, C and O channels in and out, H and W height and width, T tiles of 2x2 pixels, r and s the row and the
column of a tile's four transformed values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vargpt_lightning.models.tokenizer.group_norm import without_gradient

TILES = 128  # at once and thread: what is made of them fits in the second-level cache
SMALLEST_MAP, FEWEST_CHANNELS = 64 * 64, 128  # below, transforms take what the products save
MOST_THREADS = 8  # beyond, oneDNN's own convolution spreads better
KERNEL_TRANSFORM = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class Conv3x3(nn.Conv2d):
    """A convolution that keeps height and width, by Winograd's algorithm where that is faster."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if _pays(x_BCHW, self.weight):
            return winograd_convolution(x_BCHW, self.weight, self.bias)
        # of oneDNN's two kernels the one for contiguous maps adds in shorter sums and rounds five times less
        return super().forward(x_BCHW.contiguous() if without_gradient(x_BCHW, self.weight) else x_BCHW)


def _pays(x_BCHW: Tensor, weight: Tensor) -> bool:
    height, width = x_BCHW.shape[-2:]
    large = height * width >= SMALLEST_MAP and min(weight.shape[:2]) >= FEWEST_CHANNELS
    even = height % 2 == width % 2 == 0
    return large and even and without_gradient(x_BCHW, weight) and torch.get_num_threads() <= MOST_THREADS


@torch.no_grad()
def winograd_convolution(x_BCHW: Tensor, weight_OC33: Tensor, bias_O: Tensor | None) -> Tensor:
    """Convolve maps of even height and width, padded by one: (B, O, H, W) in channels-last."""
    B, C, H, W = x_BCHW.shape
    O = weight_OC33.shape[0]  # noqa: E741
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    kernels_KCO = _transform_kernels(weight_OC33)
    high, wide = H // 2, W // 2
    most = max(1, TILES * torch.get_num_threads() // wide)
    rows = next(count for count in range(min(most, high), 0, -1) if high % count == 0)
    y_BHWO = x_BCHW.new_empty(B, H, W, O)
    padded_hWC = x_BCHW.new_zeros(2 * rows + 2, W + 2, C)
    buffers = (
        x_BCHW.new_empty(4, rows, W + 2, C),
        x_BCHW.new_empty(4, 4, rows, wide, C),
        x_BCHW.new_empty(16, rows * wide, O),
        x_BCHW.new_empty(4, rows, wide, O),
        x_BCHW.new_empty(4, rows, wide, 2, O),
        x_BCHW.new_empty(rows, wide, 2, O),
    )
    for b in range(B):
        for top in range(0, H, 2 * rows):
            first, last = max(top - 1, 0), min(top + 2 * rows + 1, H)
            padded_hWC[first - top + 1 : last - top + 1, 1:-1] = x_BHWC[b, first:last]
            if last == H:
                padded_hWC[-1] = 0
            _convolve(padded_hWC, kernels_KCO, bias_O, y_BHWO[b, top : top + 2 * rows], buffers)
        padded_hWC[0] = 0
    return y_BHWO.permute(0, 3, 1, 2)


def _transform_kernels(weight_OC33: Tensor) -> Tensor:
    """Return the kernels' 16 transformed values (4 s x 4 r, C, O)."""
    O, C = weight_OC33.shape[:2]  # noqa: E741
    one = torch.tensor(KERNEL_TRANSFORM, dtype=weight_OC33.dtype)
    both = torch.einsum("ri,sj->srij", one, one).reshape(16, 9)
    return (both @ weight_OC33.permute(2, 3, 1, 0).reshape(9, -1)).view(16, C, O)


def _convolve(
    x_hWC: Tensor, kernels_KCO: Tensor, bias_O: Tensor | None, y_hWO: Tensor, buffers: tuple[Tensor, ...]
) -> None:
    """Write some rows of tiles, from their pixels and one more on each side; `buffers` hold what lies between."""
    down, both, products_KTO, half, across, sums = buffers
    rows, wide, O = half.shape[1:]  # noqa: E741
    _transform_input([x_hWC[r : r + 2 * rows : 2] for r in range(4)], down)
    _transform_input([down[:, :, s : s + 2 * wide : 2] for s in range(4)], both)
    torch.bmm(both.view(16, rows * wide, -1), kernels_KCO, out=products_KTO)
    if bias_O is not None:
        products_KTO[5] += bias_O  # the value that all four pixels have once
    _transform_output(products_KTO.view(4, 4, rows, wide, O), across[:, :, :, 0], across[:, :, :, 1], half)
    y_h2wO = y_hWO.view(rows, 2, wide, 2, O)
    _transform_output(across, y_h2wO[:, 0], y_h2wO[:, 1], sums)


def _transform_input(values: list[Tensor], out: Tensor) -> None:
    one, two, three, four = values
    torch.sub(one, three, out=out[0])
    torch.add(two, three, out=out[1])
    torch.sub(three, two, out=out[2])
    torch.sub(two, four, out=out[3])


def _transform_output(values: Tensor, first: Tensor, second: Tensor, spare: Tensor) -> None:
    torch.add(values[1], values[2], out=spare)
    torch.add(values[0], spare, out=first)
    torch.sub(values[1], values[2], out=spare)
    torch.sub(spare, values[3], out=second)
