"""The scale schedule: how many tokens a picture has, where each scale lies among them, and who may attend to whom.

Legend: L visual tokens of all scales, K scales, l visual tokens of one scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # experiments are read without torch
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ScaleSchedule:
    """Side lengths of a picture's token maps, from the coarsest to the finest (VAR, arXiv 2404.02905, section 3.2).

    The maps are square. Their tokens follow each other scale by scale, and row by row within a scale.

    Raises:
        UserError: (a ValueError) when ``sizes`` is empty or not strictly increasing positive integers.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = tuple(self.sizes)
        integers = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
        if not sizes or not integers or any(low >= high for low, high in pairwise(sizes)):
            raise UserError(f"scales: got {self.sizes!r}, expected strictly increasing positive integers")
        object.__setattr__(self, "sizes", sizes)

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
        return self.sizes[0] ** 2

    @property
    def final_size(self) -> int:
        """Side length of the finest map, in tokens."""
        return self.sizes[-1]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each scale's tokens lie among the L tokens of a picture."""
        ends = list(accumulate(size**2 for size in self.sizes))
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    def level_ids(self, device: torch.device | str | None = None) -> Tensor:
        """Return the scale index of every token as an integer tensor of shape (L,)."""
        import torch

        counts = torch.tensor([size**2 for size in self.sizes], device=device)
        return torch.arange(self.num_scales, device=device).repeat_interleave(counts, output_size=self.num_tokens)

    def block_causal_mask(self, device: torch.device | str | None = None) -> Tensor:
        """Return the boolean (L, L) mask, True where the row's token may attend to the column's.

        A token attends to all tokens of its own and of earlier scales (VAR, section 3.2).
        """
        level_L = self.level_ids(device)
        return level_L[:, None] >= level_L[None, :]
