"""The section `init_from` of an experiment: where a model's first weights come from. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.utils.errors import UserError

NewRows = Literal["mean", "normal", "keep"]


@dataclass
class InitFrom:
    """Where a model's initial weights come from; submodules that are not named start from random weights.

    Each is a file, a folder, a run, or when there is no such path a hub id: OWNER/NAME, or OWNER/NAME/FILE.

    Args:
        model: weights for all submodules that have no line of their own.
        language_model, vision_tower, vision_projector, image_tokenizer, visual_decoder, start_embedding: weights for
            this submodule.
        generation_projectors: weights for both generation projectors.
        generation_projector_in, generation_projector_out: weights for this generation projector.
        new_rows: how to initialise vocabulary rows that the checkpoint lacks, such as the tokens around drawn pictures:
            "mean": the mean of the other rows; "normal": random with the mean and standard deviation of each column;
            "keep": keep the checkpoint's spare rows.
        ignore: patterns of keys that may be missing or unused, such as visual_decoder.class_emb.*; missing ones start
            fresh.
    """

    model: str | None = None
    language_model: str | None = None
    vision_tower: str | None = None
    vision_projector: str | None = None
    image_tokenizer: str | None = None
    visual_decoder: str | None = None
    start_embedding: str | None = None
    generation_projectors: str | None = None
    generation_projector_in: str | None = None
    generation_projector_out: str | None = None
    new_rows: NewRows = "mean"
    ignore: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.new_rows not in ("mean", "normal", "keep"):
            raise UserError(f"init_from.new_rows: got {self.new_rows!r}, expected one of mean, normal, keep")
        if self.ignore and not self:
            raise UserError("init_from.ignore: given, but no submodule; expected the name of one with its weights")

    def __bool__(self) -> bool:
        return bool(self.model or any(getattr(self, name) for name in SUBMODULES))

    def places(self) -> dict[str, str]:
        """Return where the weights of each submodule come from, for those that are named."""
        places: dict[str, str] = {}
        for name, attributes in SUBMODULES.items():
            where = getattr(self, name)
            for attribute in attributes:
                own = getattr(self, attribute, None) or where or self.model
                if own:
                    places[attribute] = own
        return places
