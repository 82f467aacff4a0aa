"""FastVAR (arXiv 2503.23367): late scales are computed for the tokens that stand out, the others are filled in.

In each branch of a block the tokens that are farthest from their mean are kept; what the branch gives for the others is
what it gave at an earlier scale, enlarged. Keys and values are kept for the kept tokens alone.

Legend: N rows of the decoder, l tokens of a scale, n kept ones, m those of the scale that is enlarged, h and w the
sides of a map, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from vargpt_lightning.models.parts.base import Branch, Drawing, Facts, Hooks, Kept, Part, check_length
from vargpt_lightning.utils.ranges import Few, Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "fastvar"
TITLE = "late scales are computed for the tokens that stand out"
Share = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True)
class FastVAR(Part):
    """Prune tokens of the decoder's blocks.

    Args:
        ratios: share of the tokens that is left out, one for each scale; the last scale before any with all its tokens
            is the one that is enlarged. The published ones are 0.4 and 0.5 at sides 32 and 40 of Infinity.
        first_layer: blocks before this one compute all tokens.
    """

    name: ClassVar[str] = NAME
    excludes: ClassVar[tuple[str, ...]] = ("scalekv",)
    inside: ClassVar[bool] = True

    ratios: list[Share]
    first_layer: Few = 1

    def check(self, facts: Facts) -> None:
        check_length(f"{NAME}.ratios", self.ratios, facts)

    def idle(self, facts: Facts) -> str:
        if not any(self.ratios[1:]):
            return "no scale behind the first leaves tokens out"
        return f"the decoder has {facts.depth} blocks" if self.first_layer >= facts.depth else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return Hooks() if self.idle(drawing.facts) else _Pruning(self, drawing.facts, len(drawing.streams))


class _Pruning(Hooks):
    def __init__(self, part: FastVAR, facts: Facts, rows: int) -> None:
        self.part, self.shapes, self.rows = part, facts.shapes, rows
        self.source = next(k for k, ratio in enumerate(part.ratios) if k and ratio) - 1
        self.given: dict[tuple[int, Branch], Tensor] = {}

    def tokens(self, layer: int, k: int, branch: Branch, x_NlC: Tensor) -> Kept | None:
        ratio = float(self.part.ratios[k])
        if k <= self.source or layer < self.part.first_layer or ratio == 0:
            return None
        idx_Nn = standing_out(x_NlC, max(1, round((1 - ratio) * x_NlC.shape[1])))
        before_NmC = self.given[layer, branch][: len(x_NlC)]
        return Filled(idx_Nn, enlarged(before_NmC, self.shapes[self.source], self.shapes[k]))

    def restored(self, layer: int, k: int, branch: Branch, y_NlC: Tensor) -> None:
        if k == self.source and layer >= self.part.first_layer:
            self.given[layer, branch] = y_NlC

    def regroup(self, rows: Sequence[int]) -> None:
        for key, y_NmC in self.given.items():
            second = [self.rows + row for row in rows] if len(y_NmC) > self.rows else []
            self.given[key] = y_NmC[[*rows, *second]]
        self.rows = len(rows)


class Filled:
    """Tokens that are kept, and what stands for the others.

    Args:
        idx_Nn: the places of the kept ones.
        rest_NlC: what a branch is taken to give for all.
    """

    def __init__(self, idx_Nn: Tensor, rest_NlC: Tensor) -> None:
        self.idx_Nn, self.rest_NlC = idx_Nn, rest_NlC

    def take(self, x_NlC: Tensor) -> Tensor:
        """Return the kept tokens (N, n, C)."""
        return x_NlC.gather(1, self.idx_Nn[..., None].expand(-1, -1, x_NlC.shape[-1]))

    def restore(self, y_NnC: Tensor) -> Tensor:
        """Return what the branch gave for them, amid what stands for the others."""
        places = self.idx_Nn[..., None].expand(-1, -1, y_NnC.shape[-1])
        return self.rest_NlC.to(y_NnC.dtype).scatter(1, places, y_NnC)


def standing_out(x_NlC: Tensor, count: int) -> Tensor:
    """Return the places (N, n) of the tokens farthest from the mean of their map, in their order."""
    far_Nl = (x_NlC - x_NlC.mean(dim=1, keepdim=True)).square().sum(dim=-1)
    return far_Nl.topk(count, dim=1).indices.sort(dim=1).values


def enlarged(y_NmC: Tensor, shape: tuple[int, int], larger: tuple[int, int]) -> Tensor:
    """Return a map of tokens at a larger size, each the mean of the area that it covers."""
    import torch.nn.functional as F

    map_NChw = y_NmC.transpose(1, 2).unflatten(-1, shape)
    return F.interpolate(map_NChw, size=larger, mode="area").flatten(2).transpose(1, 2)


PART = FastVAR
