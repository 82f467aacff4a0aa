"""What a stage that learns from preferences may be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Count, Factor, Range, Ranged, Share, Size

Beta = Annotated[float, Range(0, 1_000_000, above=True)]
Reduction = Literal["sum", "mean"]


@dataclass
class DpoSettings(Ranged):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290), of a stage with `head: dpo`.

    Args:
        beta: what differences of log-probabilities are multiplied by; the larger, the nearer the model stays to the
            reference.
        log_probability: of an answer: the "sum" over its text tokens and its pictures' numbers (indices or bits), as
            published, or their "mean", which wants a beta some hundred times larger.
        supervised: weight of the loss of chosen answers themselves, the mean over their tokens and numbers; keeps
            them from becoming less likely together with the rejected ones.
    """

    place: ClassVar[str] = "dpo"

    beta: Beta = 0.1
    log_probability: Reduction = "sum"
    supervised: Factor = 0.1


@dataclass
class CcaSettings(Ranged):
    """Condition contrastive alignment (Chen et al., arXiv 2410.09347), of a stage with `head: cca`.

    Args:
        beta: what log-ratios of pictures are multiplied by.
        negative_weight: weight of pictures beside another's prompt, the paper's lambda; the loss is divided by it where
            it is above 1.
        hidden: share of pictures whose prompt is hidden, so that guidance stays possible; they count as right ones.
    """

    place: ClassVar[str] = "cca"

    beta: Beta = 0.02
    negative_weight: Factor = 50.0
    hidden: Share = 0.1


@dataclass
class WatchSettings(Ranged):
    """Whether a stage that learns from preferences forgets what was known: looks at records that stay the same.

    Args:
        data: names of corpora; held-out records of each, or training ones where there are none held out.
        records: how many of each; what the reference expects of every token of their answers is kept in memory.
        every: optimizer steps between two looks; one comes before the first step and one after the last.
        text_loss: the stage ends when the loss of text, a token's, has risen by more than this; None never ends it.
        question_accuracy: the stage ends when the share of questions that are answered right has fallen by more than
            this; None never ends it.
    """

    place: ClassVar[str] = "watch"

    data: list[str] = field(default_factory=list)
    records: Size = 32
    every: Count = 20
    text_loss: Factor | None = None
    question_accuracy: Share | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise UserError("watch.data=[]; expected names of corpora to look at")
