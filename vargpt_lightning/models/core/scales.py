"""The scale schedule: how many tokens a picture has, where each scale lies among them, and who may attend to whom.

Legend: L visual tokens of all scales, K scales, l visual tokens of one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # experiments are read without torch
    import torch
    from torch import Tensor

MapSize = int | tuple[int, int]
"""The side of a square map, or height and width of another one; in tokens."""


@dataclass(frozen=True)
class ScaleSchedule:
    """Sizes of a picture's token maps, from the coarsest to the finest (VAR, arXiv 2404.02905, section 3.2).

    A size is the side of a square map, or (height, width). The tokens follow each other scale by scale, and row by row
    within a scale.

    Raises:
        UserError: (a ValueError) when ``sizes`` is empty, or a map is not larger than the one before it.
    """

    sizes: tuple[MapSize, ...]

    def __post_init__(self) -> None:
        shapes = [_shape_of(size) for size in self.sizes]
        if not shapes or None in shapes or not all(_grows(*pair) for pair in pairwise(shapes)):
            raise UserError(
                f"scales: got {self.sizes!r}, expected strictly increasing positive integers, or pairs of them: height "
                "and width"
            )
        sizes = tuple(shape[0] if shape[0] == shape[1] else shape for shape in shapes if shape)
        object.__setattr__(self, "sizes", sizes)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each map, in tokens."""
        return tuple((size, size) if isinstance(size, int) else size for size in self.sizes)

    @property
    def num_scales(self) -> int:
        """K, the number of scales."""
        return len(self.sizes)

    @property
    def num_tokens(self) -> int:
        """L, the tokens of all scales together."""
        return self.slices[-1].stop

    @property
    def first_tokens(self) -> int:
        """Tokens of the first scale, which are predicted from the start embedding alone."""
        return self.slices[0].stop

    @property
    def final_shape(self) -> tuple[int, int]:
        """Height and width of the finest map, in tokens."""
        return self.shapes[-1]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each scale's tokens lie among the L tokens of a picture."""
        ends = list(accumulate(height * width for height, width in self.shapes))
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    def level_ids(self, device: torch.device | str | None = None) -> Tensor:
        """Return the scale index of every token as an integer tensor of shape (L,)."""
        import torch

        counts = torch.tensor([height * width for height, width in self.shapes], device=device)
        return torch.arange(self.num_scales, device=device).repeat_interleave(counts, output_size=self.num_tokens)

    def block_causal_mask(self, device: torch.device | str | None = None) -> Tensor:
        """Return the boolean (L, L) mask, True where the row's token may attend to the column's.

        A token attends to all tokens of its own and of earlier scales (VAR, section 3.2).
        """
        level_L = self.level_ids(device)
        return level_L[:, None] >= level_L[None, :]


def _shape_of(size: Any) -> tuple[int, int] | None:
    """Height and width of a size; None for what is none."""
    pair = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair)
    return (pair[0], pair[1]) if whole and len(pair) == 2 else None


def _grows(low: tuple[int, int] | None, high: tuple[int, int] | None) -> bool:
    return bool(low and high and low != high and low[0] <= high[0] and low[1] <= high[1])
