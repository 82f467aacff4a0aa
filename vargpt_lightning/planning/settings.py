"""What a plan has to be told, as it stands in an experiment under `plan`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from vargpt_lightning.ranges import Amount, Count, Few, Range, Ranged


@dataclass
class CorpusShape(Ranged):
    """A corpus whose data need not be there yet.

    Args:
        samples: records.
        text: text tokens of a record on average, special ones included, pictures' placeholders not.
        longest: text tokens of the longest records, which the memory is planned for; None takes four times `text`.
        trained: answer tokens of a record on average; None takes half of `text`.
        seen, drawn: pictures of a record.
    """

    place: ClassVar[str] = "plan.corpora"

    samples: Count
    text: Count
    longest: Count | None = None
    trained: Amount | None = None
    seen: Few = 0
    drawn: Few = 0


@dataclass
class PlanConfig(Ranged):
    """How an experiment is planned.

    Args:
        gpus: such as 8xH100-80GB; the command line's wins.
        efficiency: share of the GPU's dense bf16 peak that the executed operations reach: stated, or measured in a run.
        corpora: what the stages' data are like, where they are not there to be counted.
    """

    place: ClassVar[str] = "plan"

    gpus: str | None = None
    efficiency: Annotated[float, Range(0, 1, above=True)] = 0.4
    corpora: dict[str, CorpusShape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        # a mapping's values are not parsed as classes by every reader of an experiment
        self.corpora = {
            name: shape if isinstance(shape, CorpusShape) else CorpusShape(**shape)
            for name, shape in self.corpora.items()
        }
