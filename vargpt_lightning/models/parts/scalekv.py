"""ScaleKV (arXiv 2505.19602): after each scale a layer keeps the keys that a few of its tokens look at.

Of the map that has just attended a grid of tokens looks back over all that is cached; what they look at most is kept,
and they themselves.

Legend: N rows of the decoder, l tokens of a scale, S cached tokens, n kept ones, W tokens of the grid, H heads, D head
dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "scalekv"
TITLE = "the decoder's cache of each layer is kept below a number of tokens"
GRID = 4
POOL = 5
Capacity = Annotated[int, Range(GRID * GRID, 10**9)]


@dataclass(frozen=True)
class ScaleKV(Part):
    """Keep at most so many tokens of a layer's cache.

    Args:
        capacity: for all layers; at least the 16 of the grid. The published base is 121.
        capacities: one for each layer, in place of it. The published ones are larger for layers that attend widely.
    """

    name: ClassVar[str] = NAME
    excludes: ClassVar[tuple[str, ...]] = ("fastvar",)
    inside: ClassVar[bool] = True

    capacity: Capacity = 121
    capacities: list[Capacity] | None = None

    def check(self, facts: Facts) -> None:
        if self.capacities is not None and len(self.capacities) != facts.depth:
            expected = f"one for each of the decoder's {facts.depth} blocks"
            raise UserError(f"parts.{NAME}.capacities: got {len(self.capacities)} values, expected {expected}")

    def idle(self, facts: Facts) -> str:
        tokens = sum(height * width for height, width in facts.shapes[:-1])
        return f"before the last scale there are {tokens} tokens" if min(self.each(facts)) >= tokens else ""

    def each(self, facts: Facts) -> list[int]:
        """Return the capacity of each layer."""
        return [self.capacity] * facts.depth if self.capacities is None else list(self.capacities)

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if self.idle(drawing.facts) else _Budget(self.each(drawing.facts), drawing.facts.shapes)


class _Budget(Hooks):
    def __init__(self, capacities: list[int], shapes: tuple[tuple[int, int], ...]) -> None:
        self.capacities, self.shapes = capacities, shapes

    def cache(self, layer: int, k: int, q_NHlD: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if keys.shape[2] <= self.capacities[layer] or k == len(self.shapes) - 1:
            return keys, values
        idx_Nn = looked_at(q_NHlD, keys, grid_of(self.shapes[k]), self.capacities[layer])
        places = idx_Nn[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[3])
        return keys.gather(2, places), values.gather(2, places)


def grid_of(shape: tuple[int, int]) -> list[int]:
    """Return the tokens at the centres of a 4 x 4 grid over a map; of small maps fewer."""
    rows, columns = (sorted({int((i + 0.5) * side / GRID) for i in range(GRID)}) for side in shape)
    return [row * shape[1] + column for row in rows for column in columns]


def looked_at(q_NHlD: Tensor, keys_NHSD: Tensor, grid: list[int], count: int) -> Tensor:
    """Return the places (N, n) of `count` cached tokens, in their order: the grid's own, and those it looks at most.

    The last l of the cache are those of the map that has attended. What a token is looked at is the sum over the grid
    and the heads of q k / sqrt(D), and the largest of its neighbours' within two places.
    """
    import torch.nn.functional as F

    S, before = keys_NHSD.shape[2], keys_NHSD.shape[2] - q_NHlD.shape[2]
    seen_NS = q_NHlD[:, :, grid].sum(dim=2, keepdim=True).mul(keys_NHSD).sum(dim=(1, 3)) / keys_NHSD.shape[3] ** 0.5
    seen_NS = F.max_pool1d(seen_NS[:, None].float(), POOL, stride=1, padding=POOL // 2)[:, 0]
    seen_NS[:, [before + place for place in grid]] = float("inf")
    return seen_NS.topk(min(count, S), dim=1).indices.sort(dim=1).values


PART = ScaleKV
