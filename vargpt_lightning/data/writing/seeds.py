"""The seeds of instruction data: how people ask for pictures and how an assistant answers, from a YAML file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.yaml_text import load_yaml, told

MARK = "{caption}"
DEFAULT_SEEDS = Path(__file__).with_name("seeds.yaml")


def _has_mark(text: str) -> str:
    if text.count(MARK) != 1:
        raise ValueError(f"has {text.count(MARK)} of {MARK}, expected one")
    return text


def _may_have_mark(text: str) -> str:
    if text.count(MARK) > 1:
        raise ValueError(f"has {text.count(MARK)} of {MARK}, expected one at most")
    return text


Line = Annotated[str, pydantic.StringConstraints(min_length=1, strip_whitespace=True)]
WithCaption = Annotated[Line, pydantic.AfterValidator(_has_mark)]
MaybeCaption = Annotated[Line, pydantic.AfterValidator(_may_have_mark)]


class Seeds(pydantic.BaseModel):
    """What the writers start from; `{caption}` stands for the caption.

    Attributes:
        system: what a language model is told to do.
        prompts: requests around a noun phrase ("a tench on grass").
        scenes: requests around a whole sentence ("A dog runs on the beach").
        details: sentences that add what else is to be seen.
        openings: what may stand before a request.
        answers: the assistant's sentences; those without `{caption}` suit everything.
        captions: captions for the examples that a language model is shown.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    system: Line
    prompts: Annotated[list[WithCaption], pydantic.Field(min_length=1)]
    scenes: Annotated[list[WithCaption], pydantic.Field(min_length=1)]
    details: Annotated[list[WithCaption], pydantic.Field(min_length=1)]
    openings: list[Line] = []
    answers: Annotated[list[MaybeCaption], pydantic.Field(min_length=1)]
    captions: Annotated[list[Line], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _some_answer_suits_all(self) -> Seeds:
        if not any(MARK not in answer for answer in self.answers):
            raise ValueError(f"answers: each has {MARK}; expected one or more without, for captions that are sentences")
        return self

    @property
    def digest(self) -> str:
        """A hash of all seeds."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def read_seeds(path: Path | None = None) -> Seeds:
    """Read a YAML file of seeds, by default the one that comes along; raises UserError that names what is wrong."""
    path = path or DEFAULT_SEEDS
    try:
        value = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of seeds") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file") from error
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{path}{place}: {problem}") from error
    try:
        return Seeds.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
