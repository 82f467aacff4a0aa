"""What parts of a sampler ask for besides the model: text as ids, other models, scorers of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.shards.records import TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError

Scorer = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[float]]
"""From pictures and what each was asked for to a number each, the larger the better."""


class AssistantSources:
    """What an assistant's parts ask for.

    Args:
        model: the model that draws.
        tokenizer: its text tokenizer.
        template: its chat template.
        opened: returns another model and its text tokenizer, None where none can be opened.
        scorers: returns what finds scorers, None where there are none.
    """

    def __init__(
        self,
        model: VARGPT,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        opened: Callable[[str], tuple[VARGPT, TextTokenizer] | None],
        scorers: Callable[[], Callable[[str], Scorer] | None],
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._opened, self._scorers = opened, scorers
        self._models: dict[str, VARGPT] = {}
        self._found: dict[str, Scorer] = {}

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a request with this text, up to where the answer begins.

        Raises:
            UserError: it leaves no room for a picture.
        """
        reserve = self._model.config.picture_length + 2
        turns = [Turn("user", (TextPart(text),))]
        rendered = self._template.prompt(turns, self._model.config.language.max_positions, reserve)
        return [int(token) for token in rendered.ids]

    def model(self, where: str) -> VARGPTModel:
        """Return another model that draws with the same tokens; it is opened once.

        Raises:
            UserError: there is none, or its text or image tokenizer is another one.
        """
        if where not in self._models:
            found = self._opened(where)
            if found is None:
                raise UserError(f"parts: got the model {where!r}, expected a place where other models can be opened")
            other, tokenizer = found
            check_together(self._model, self._tokenizer, other, tokenizer, where)
            device = self._model.language_model.lm_head.weight.device
            self._models[where] = other.eval().requires_grad_(False).to(device)
        return self._models[where]

    def scorer(self, name: str) -> Scorer:
        """Return a scorer by its name.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self._found:
            find = self._scorers()
            if find is None:
                raise UserError(f"parts: got the scorer {name!r}, expected a command that has scorers")
            self._found[name] = find(name)
        return self._found[name]


def check_together(
    model: VARGPTModel, tokenizer: TextTokenizer, other: VARGPTModel, theirs: TextTokenizer, where: str
) -> None:
    """Make sure that two models read and draw with the same tokens.

    Raises:
        UserError: they do not; says which tokenizer differs.
    """
    place = f"parts: {where} cannot draw with this model"
    if tokenizer.__getstate__() != theirs.__getstate__() or model.tokens != other.tokens:
        raise UserError(f"{place}: its text tokenizer is another one; expected a model of the same text tokenizer")
    if model.schedules != other.schedules:
        scales, expected = (", ".join(str(schedule.sizes) for schedule in each.schedules) for each in (other, model))
        raise UserError(f"{place}: its scales are {scales}; expected {expected}")
    ours, others = (each.image_tokenizer.encoding_state() for each in (model, other))
    for name, value in ours.items():
        found = others.get(name)
        if name.startswith(("encoder.", "quant_conv.")):
            continue
        if found is None or found.shape != value.shape or not torch.equal(found.cpu().float(), value.cpu().float()):
            raise UserError(f"{place}: its image tokenizer has other codes ({name}); expected the same image tokenizer")
