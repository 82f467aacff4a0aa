"""What a plan has to be told, as it stands in an experiment under `plan`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from vargpt_lightning.utils.ranges import Amount, Count, Few, Range, Ranged


@dataclass
class CorpusShape(Ranged):
    """A corpus whose data need not be there yet.

    Args:
        samples: number of records.
        text: average text tokens per record, including special tokens but not pictures' placeholders.
        longest: text tokens of the longest records, for which memory is planned; None uses four times `text`.
        trained: average answer tokens per record; None uses half of `text`.
        seen, drawn: number of seen and of drawn pictures per record.
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
    """Settings of `vargpt plan`.

    Args:
        gpus: GPUs to plan for, such as 8xH100-80GB; the command line overrides it.
        efficiency: share of the GPUs' dense bf16 peak that training reaches: assumed, or measured in a run.
        corpora: descriptions of the stages' corpora, for data that do not exist yet.
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
