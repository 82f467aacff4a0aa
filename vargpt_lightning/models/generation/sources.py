"""Where parts of a sampler get what no model holds, where nothing else is said: nowhere."""

from __future__ import annotations

from typing import Any

from vargpt_lightning.utils.errors import UserError


class NoSources:
    """Refuses all that parts ask for."""

    def prompt_ids(self, text: str) -> list[int]:
        """Raise UserError: there is no text tokenizer."""
        raise UserError(f"parts.negative: got {text!r}, expected a model with its text tokenizer, as `load` gives it")

    def model(self, where: str) -> Any:
        """Raise UserError: no other model can be loaded."""
        raise UserError(f"parts: got the model {where!r}, expected a place where other models can be loaded")

    def scorer(self, name: str) -> Any:
        """Raise UserError: there are no scorers."""
        raise UserError(f"parts: got the scorer {name!r}, expected a place where there are some")
