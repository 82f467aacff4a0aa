"""Scaled Spatial Guidance (SSG, arXiv 2602.05534): towards what a scale adds to the one before.

Public are the rule and that the prior is the last scale's logits, enlarged with their low frequencies kept; how the
factor goes over the scales is not, so that it is one for all here.

Legend: R rows, l tokens of a scale, h and w its sides, H and W those of the next, V codebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from vargpt_lightning.models.parts.base import Drawing, Facts, Hooks, Part, Scale
from vargpt_lightning.utils.ranges import Range

if TYPE_CHECKING:
    from torch import Tensor

NAME = "spatial"
TITLE = "scaled spatial guidance: away from the enlarged logits of the scale before"


@dataclass(frozen=True)
class Spatial(Part):
    """Logits + beta (logits - prior).

    Args:
        beta: 0 leaves the logits as they are.
    """

    name: ClassVar[str] = NAME
    rank: ClassVar[int] = 70

    beta: Annotated[float, Range(0, 100)] = 0.1

    def idle(self, facts: Facts) -> str:
        if self.beta == 0:
            return "beta is 0"
        return "there is one scale, which has none before it" if facts.scales == 1 else ""

    def begin(self, drawing: Drawing) -> Hooks:
        return _Away(self.beta, drawing.facts.shapes) if self.beta else Hooks()


class _Away(Hooks):
    def __init__(self, beta: float, shapes: Sequence[tuple[int, int]]) -> None:
        self.beta, self.shapes = beta, shapes
        self.before_RlV: Tensor | None = None

    def logits(self, scale: Scale, cond_RlV: Tensor, second_GlV: Tensor | None, guided_RlV: Tensor) -> Tensor:
        before_RlV, self.before_RlV = self.before_RlV, guided_RlV
        if before_RlV is None:
            return guided_RlV
        prior_RlV = enlarged(before_RlV, self.shapes[scale.k - 1], self.shapes[scale.k])
        return guided_RlV + self.beta * (guided_RlV - prior_RlV)

    def regroup(self, rows: Sequence[int]) -> None:
        if self.before_RlV is not None:
            self.before_RlV = self.before_RlV[list(rows)]


def enlarged(logits_RlV: Tensor, shape: tuple[int, int], larger: tuple[int, int]) -> Tensor:
    """Return a map of logits at a larger size: enlarged linearly, its low frequencies (DCT) put back as they were."""
    import torch.nn.functional as F

    (h, w), (H, W) = shape, larger
    small_RVhw = logits_RlV.transpose(1, 2).unflatten(-1, shape)
    large_RVHW = F.interpolate(small_RVhw, size=larger, mode="bilinear", align_corners=False)
    rows, columns, many_rows, many_columns = (cosines(side).to(logits_RlV) for side in (h, w, H, W))
    waves_RVHW = many_rows @ large_RVHW @ many_columns.T
    waves_RVHW[..., :h, :w] = rows @ small_RVhw @ columns.T * (H * W / (h * w)) ** 0.5
    return (many_rows.T @ waves_RVHW @ many_columns).flatten(2).transpose(1, 2)


def cosines(side: int) -> Tensor:
    """Return the orthonormal DCT-II matrix (side, side), a wave a row."""
    import torch

    place = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(torch.pi * (place + 0.5) * place[:, None] / side) * (2 / side) ** 0.5
    waves[0] /= 2**0.5
    return waves


PART = Spatial
