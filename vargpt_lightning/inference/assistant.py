"""A model that speaks: conversations with pictures, answers and drawings as evaluation asks for them.

Shape suffixes: B pictures, S, H, W pixels, L visual tokens of a drawn picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.loading.feature_cache import weights_hash
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Part, PicturePart, TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.inference.sizes import size_named
from vargpt_lightning.inference.sources import AssistantSources, Scorer
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.models.generation.answers import Answer, GenerationSettings, Prompt, Watcher, to_images
from vargpt_lightning.models.generation.answers import PicturePart as DrawnPart
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.models.parts import idle_parts
from vargpt_lightning.utils.errors import UserError, hint


def seen_reader(config: VisionConfig) -> PictureReader:
    """Return how pictures are read for the vision tower: its size, and the mean and deviation of its own training."""
    if config.kind == "none":
        raise UserError("this model sees no pictures (vision.kind is 'none'); expected words alone")
    mean, std = config.scaling
    if config.native:
        return PictureReader(config.patch_size, mean, std, config.squaring, tokens=config.max_tokens)
    return PictureReader(config.picture_size, mean, std, config.squaring)


@dataclass
class Conversation:
    """What was said so far, with the pictures in the form that the model takes.

    `pictures` holds a tensor for each picture key: a seen one as the tower takes it, (L,) codes of a drawn one, whose
    part of a turn says which of the model's sizes it has.
    """

    turns: list[Turn] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)

    def copy(self) -> Conversation:
        """Return a conversation that can go on by itself."""
        return Conversation(list(self.turns), dict(self.pictures))

    def ask(self, text: str, seen: Mapping[str, Tensor] | None = None) -> None:
        """Add the user's turn: the pictures, then the text."""
        self.pictures |= seen or {}
        parts: list[Part] = [PicturePart(SEEN, key) for key in seen or {}]
        self.turns.append(Turn("user", (*parts, *([TextPart(text)] if text else []))))

    def add(self, answer: Answer) -> None:
        """Add the model's turn, with what it drew."""
        parts: list[Part] = []
        for part in answer.parts:
            if isinstance(part, DrawnPart):
                key = f"drawn-{len(self.pictures)}"
                self.pictures[key] = part.indices
                parts.append(PicturePart(DRAWN, key, size=part.size))
            else:
                parts.append(TextPart(part.text))
        self.turns.append(Turn("assistant", tuple(parts)))


@dataclass
class Assistant:
    """A model with its text tokenizer: it continues conversations, answers questions and draws.

    Args:
        model: used as it is; put it into evaluation mode first.
        tokenizer: the text tokenizer that the model was trained with.
        settings: of all that it says; `seed` and the row of a prompt make the random stream of that prompt.
        opened: opens another model by its name, for parts of the sampler that draw with two.
        scorers: finds a scorer of pictures by its name, for parts that choose among candidates.
    """

    model: VARGPT
    tokenizer: TextTokenizer
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    opened: Callable[[str], Assistant] | None = field(default=None, kw_only=True, repr=False)
    scorers: Callable[[str], Scorer] | None = field(default=None, kw_only=True, repr=False)

    @cached_property
    def sources(self) -> AssistantSources:
        """Where parts of the sampler get what the model does not hold."""
        return AssistantSources(self.model, self.tokenizer, self.template, self._open, lambda: self.scorers)

    def _open(self, where: str) -> tuple[VARGPT, TextTokenizer] | None:
        if self.opened is None:
            return None
        other = self.opened(where)
        return other.model, other.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The chat template of this model's pictures."""
        return ChatTemplate(self.tokenizer, self.model.config.vision.patches, self.model.config.picture_lengths)

    def picture_tokens(self, size: int = 0) -> int:
        """Return the places of a drawn picture of one of the model's sizes, between its start and its end."""
        return self.model.config.picture_lengths[size]

    @property
    def digest(self) -> str:
        """A hash of all weights: what evaluation knows this model by."""
        return weights_hash(self.model.state_dict())

    def see(self, image: Image.Image) -> Tensor:
        """Return a picture as the vision tower takes it: (3, S, S), or a strip of its patches.

        Raises:
            UserError: it is no PIL image, or one without pixels.
        """
        if not isinstance(image, Image.Image):
            raise UserError(f"picture: got {_shown(image)}, expected a PIL image, such as Image.open('apple.png')")
        if 0 in image.size:
            raise UserError(f"picture: got {image.width} x {image.height} pixels, expected 1 x 1 or more")
        return seen_reader(self.model.config.vision).to_tensor(image)

    def prompt(self, conversation: Conversation, row: int | None = None, reserve: int = 1) -> Prompt:
        """Render a conversation whose last turn is the user's.

        Raises:
            UserError: it leaves less than `reserve` tokens of the context for the answer.
        """
        context = self.model.config.language.max_positions
        rendered = self.template.prompt(conversation.turns, context, reserve)
        pictures = conversation.pictures
        seen, drawn = ([pictures[part.name] for part in parts] for parts in (rendered.seen, rendered.drawn))
        asked = next((turn.text for turn in reversed(conversation.turns) if turn.role == "user"), "")
        return Prompt(
            rendered.ids.tolist(),
            pixel_values=torch.stack(seen) if seen else None,
            drawn_indices=drawn or None,
            drawn_sizes=[part.size for part in rendered.drawn],
            row=row,
            request=asked,
        )

    def reply(
        self,
        conversations: Sequence[Conversation],
        rows: Sequence[int] | None = None,
        settings: GenerationSettings | None = None,
        reserve: int = 1,
    ) -> list[Answer]:
        """Answer each conversation; `rows` name their random streams, by default their places."""
        rows = range(len(conversations)) if rows is None else rows
        prompts = [self.prompt(one, row, reserve) for one, row in zip(conversations, rows, strict=True)]
        return generate(self.model, prompts, self.tokenizer.decode, settings or self.settings, sources=self.sources)

    def continue_all(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, watcher: Watcher | None = None
    ) -> list[Answer]:
        """Answer prompts, each from its own stream; a watcher is told what comes while it comes."""
        return generate(self.model, prompts, self.tokenizer.decode, settings, watcher, self.sources)

    def forget_oldest(self, conversation: Conversation) -> int:
        """Forget the oldest turns until there is room for an answer with a picture; returns how many.

        Raises:
            UserError: the last turn alone leaves too little.
        """
        reserve = self.picture_tokens(self.settings.size) + min(self.settings.max_new_tokens, 32)
        reserve = min(reserve, self.model.config.language.max_positions // 2)
        forgotten = 0
        while True:
            try:
                self.prompt(conversation, reserve=reserve)
                return forgotten
            except UserError:
                if len(conversation.turns) < 3:
                    raise
                del conversation.turns[:2]
                forgotten += 2

    def ask(self, text: str, *pictures: Image.Image, **changes: Any) -> Answer:
        """Answer one request, with words, drawings or both (`text` and `pictures` of the answer).

        Args:
            text: the request; it may be empty where there are pictures.
            pictures: what the request is about.
            changes: of the `GenerationSettings`, such as seed=1 or max_new_tokens=40; size also in words, "96x64".

        Raises:
            UserError: the text, a picture or a setting is not what it should be.
        """
        if not isinstance(text, str) or not (text.strip() or pictures):
            raise UserError(f"text: got {_shown(text)}, expected a question or a request")
        if unknown := [key for key in changes if key not in GenerationSettings.__dataclass_fields__]:
            raise UserError(f"{unknown[0]} is no setting; {hint(unknown[0], GenerationSettings.__dataclass_fields__)}")
        if (visual := changes.get("visual")) is not None:
            for name, reason in idle_parts(visual.parts, self.model.facts(visual)).items():
                warnings.warn(f"parts.{name}: changes nothing here: {reason}", stacklevel=2)
        if isinstance(changes.get("size"), str):
            changes["size"] = size_named(changes["size"], self.model.config.tokenizer)
        conversation = Conversation()
        conversation.ask(text, {f"seen-{number}": self.see(picture) for number, picture in enumerate(pictures)})
        return self.reply([conversation], settings=replace(self.settings, **changes))[0]

    @torch.inference_mode()
    def reconstruct(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Send pictures through the image tokenizer and back."""
        tokenizer = self.model.image_tokenizer
        reader = PictureReader(tokenizer.picture_shape)
        x_B3HW = torch.stack([reader.to_tensor(picture) for picture in pictures])
        return to_images(tokenizer.reconstruct(x_B3HW.to(next(tokenizer.parameters()).device)))


def _shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
