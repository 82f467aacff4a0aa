"""How a stage with the head `grpo` learns from rewards of its own drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Range, Ranged


@dataclass
class GRPOSettings(Ranged):
    """Groups of a model's own drawings under a reward, with the head `grpo` (see docs/rewards.md).

    Args:
        reward: a scorer's name, such as composition; see docs/samplers.md.
        group: number of drawings of each request.
        clip: the ratio to the policy that drew counts up to 1 + clip and down to 1 - clip.
        kl: weight of the divergence from the model that the stage began with; 0 turns it off, and saves its memory.
        updates: optimizer steps with the same drawings; 1 draws anew for each.
        scales: train the tokens of the first so many scales alone; None trains those of all.
        reward_batch: drawings that are scored together.
    """

    place: ClassVar[str] = "grpo"

    reward: str = ""
    group: Annotated[int, Range(2, 10_000)] = 8
    clip: Annotated[float, Range(0, 1, above=True)] = 0.2
    kl: Annotated[float, Range(0, 1_000_000)] = 0.1
    updates: Annotated[int, Range(1, 10_000)] = 1
    scales: Annotated[int, Range(1, 1000)] | None = None
    reward_batch: Annotated[int, Range(1, 1_000_000)] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reward.strip():
            raise UserError(f"{self.place}.reward={self.reward!r}; expected a scorer's name, such as composition")
