"""What a plan has to be told, as it stands in an experiment under `plan`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from vargpt_lightning.errors import UserError


@dataclass
class CorpusShape:
    """A corpus whose data need not be there yet.

    Args:
        samples: records.
        text: text tokens of a record on average, special ones included, pictures' placeholders not.
        longest: text tokens of the longest records, which the memory is planned for; None takes four times `text`.
        trained: answer tokens of a record on average; None takes half of `text`.
        seen, drawn: pictures of a record.
    """

    samples: int
    text: int
    longest: int | None = None
    trained: int | None = None
    seen: int = 0
    drawn: int = 0

    def __post_init__(self) -> None:
        for key, least in (("samples", 1), ("text", 1), ("longest", 1), ("trained", 0), ("seen", 0), ("drawn", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"plan.corpora: {key}={value}; expected {least} or more")


@dataclass
class PlanConfig:
    """How an experiment is planned.

    Args:
        gpus: such as 8xH100-80GB; the command line's wins.
        efficiency: share of the GPU's dense bf16 peak that the executed operations reach: stated, or measured in a run.
        corpora: what the stages' data are like, where they are not there to be counted.
    """

    gpus: str | None = None
    efficiency: float = 0.4
    corpora: dict[str, CorpusShape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.efficiency <= 1:
            raise UserError(f"plan.efficiency={self.efficiency}; expected a share above 0, at most 1")
        # a mapping's values are not parsed as classes by every reader of an experiment
        self.corpora = {
            name: shape if isinstance(shape, CorpusShape) else CorpusShape(**shape)
            for name, shape in self.corpora.items()
        }
