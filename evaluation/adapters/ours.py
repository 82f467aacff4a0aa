"""A model that speaks: conversations with pictures, answers and drawings as evaluation asks for them.

Shape suffixes: B pictures, S, H, W pixels, L visual tokens of a drawn picture.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.data.caches import weights_hash
from vargpt_lightning.data.chat import ChatTemplate
from vargpt_lightning.data.pictures import PictureReader
from vargpt_lightning.data.records import DRAWN, SEEN, Part, PicturePart, TextPart, Turn
from vargpt_lightning.data.text_tokenizer import TextTokenizer
from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.protocols import AnswerRequest, RefusedError
from vargpt_lightning.models.answers import Answer, GenerationSettings, Prompt, Watcher, to_images
from vargpt_lightning.models.answers import PicturePart as DrawnPart
from vargpt_lightning.models.config import VisionConfig
from vargpt_lightning.models.generate import generate
from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.provenance import package_versions


def seen_reader(config: VisionConfig) -> PictureReader:
    """Return how pictures are read for the vision tower: its size, and the mean and deviation of its own training."""
    if config.kind == "none":
        raise UserError("this model sees no pictures (vision.kind is 'none'); expected words alone")
    mean, std = config.scaling
    return PictureReader(config.picture_size, mean, std, config.squaring)


@dataclass
class Conversation:
    """What was said so far, with the pictures in the form that the model takes.

    `pictures` holds a tensor for each picture key: (3, S, S) pixels of a seen one, (L,) codes of a drawn one.
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
                parts.append(PicturePart(DRAWN, key))
            else:
                parts.append(TextPart(part.text))
        self.turns.append(Turn("assistant", tuple(parts)))


@dataclass(frozen=True)
class Shown:
    """A drawn picture as evaluation takes it, with the pictures after each scale."""

    image: Image.Image
    progress: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Said:
    """An answer as evaluation takes it: parts with `text`, or with `image` and `progress`; and why it ended."""

    parts: tuple[Any, ...]
    finish: str = ""


_FINISH = {"end": "stop", "picture": "stop", "length": "length", "stop": "stop", "stopped": "stop"}


@dataclass(kw_only=True)
class Speaker:
    """A model with its text tokenizer: it continues conversations, answers questions and draws.

    Implements `Answerer` and `Drawer` of evaluation.protocols. It answers greedily; drawings follow from their seeds.

    Args:
        settings: of all that it says; `seed` and the row of a prompt make the random stream of that prompt.
        scales_for: prompts and seeds of the drawings that come with the pictures after each scale.
    """

    model: VARGPT
    tokenizer: TextTokenizer
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    scales_for: frozenset[tuple[str, int]] = frozenset()

    @property
    def template(self) -> ChatTemplate:
        """The chat template of this model's pictures."""
        return ChatTemplate(self.tokenizer, self.model.config.vision.patches, self.model.schedule.num_tokens)

    @property
    def digest(self) -> str:
        """A hash of all weights: what evaluation knows this model by."""
        return weights_hash(self.model.state_dict())

    def see(self, image: Image.Image) -> Tensor:
        """Return a picture as the vision tower takes it, (3, S, S)."""
        return seen_reader(self.model.config.vision).to_tensor(image)

    def prompt(self, conversation: Conversation, row: int | None = None, reserve: int = 1) -> Prompt:
        """Render a conversation whose last turn is the user's.

        Raises:
            UserError: it leaves less than `reserve` tokens of the context for the answer.
        """
        context = self.model.config.language.max_positions
        rendered = self.template.prompt(conversation.turns, context, reserve)
        seen, drawn = (
            torch.stack([conversation.pictures[part.name] for part in parts]) if parts else None
            for parts in (rendered.seen, rendered.drawn)
        )
        return Prompt(rendered.ids.tolist(), pixel_values=seen, drawn_indices=drawn, row=row)

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
        return generate(self.model, prompts, self.tokenizer.decode, settings or self.settings)

    def continue_all(
        self, prompts: Sequence[Prompt], settings: GenerationSettings, watcher: Watcher | None = None
    ) -> list[Answer]:
        """Answer prompts, each from its own stream; a watcher is told what comes while it comes."""
        return generate(self.model, prompts, self.tokenizer.decode, settings, watcher)

    def forget_oldest(self, conversation: Conversation) -> int:
        """Forget the oldest turns until there is room for an answer with a picture; returns how many.

        Raises:
            UserError: the last turn alone leaves too little.
        """
        reserve = self.model.schedule.num_tokens + min(self.settings.max_new_tokens, 32)
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
            pictures: what the request is about.
            changes: of the `GenerationSettings`, such as seed=1 or max_new_tokens=40.
        """
        conversation = Conversation()
        conversation.ask(text, {f"seen-{number}": self.see(picture) for number, picture in enumerate(pictures)})
        return self.reply([conversation], settings=replace(self.settings, **changes))[0]

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Said]:
        """Answer questions about pictures, the likeliest token at each step; each as long as it and the context allow.

        Raises:
            RefusedError: a picture is empty, or a question leaves no room for an answer in the context.
            UserError: this model sees no pictures.
        """
        prompts = self._questions(requests)
        groups: dict[int | None, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(request.max_new_tokens, []).append(place)
        said: dict[int, Said] = {}
        for length, places in groups.items():
            said |= zip(places, self._answer([prompts[place] for place in places], length), strict=True)
        return [said[place] for place in range(len(requests))]

    def _answer(self, prompts: Sequence[Prompt], length: int | None) -> list[Said]:
        settings = replace(self.settings, temperature=0.0, max_images=1, batch_size=max(1, len(prompts)))
        settings = settings if length is None else replace(settings, max_new_tokens=length)
        return [self._said(answer) for answer in generate(self.model, prompts, self.tokenizer.decode, settings)]

    def _questions(self, requests: Sequence[AnswerRequest]) -> list[Prompt]:
        """The requests as the model reads them; all that are refused are named at once."""
        if any(request.pictures for request in requests):
            seen_reader(self.model.config.vision)  # a model that sees nothing is no fault of a question
        prompts, reasons = [], {}
        for request in requests:
            try:
                prompts.append(self._question(request))
            except UserError as error:
                reasons[request.id] = f"question {request.id!r}: {error}"
        if reasons:
            raise RefusedError(reasons)
        return prompts

    def _question(self, request: AnswerRequest) -> Prompt:
        seen = {}
        for number, picture in enumerate(request.pictures):
            if 0 in picture.size:
                raise UserError(f"picture {number + 1} is empty: its size is {picture.size}")
            seen[f"{request.id}/{number}"] = self.see(picture)
        conversation = Conversation()
        conversation.ask(request.prompt, seen)
        # A question that is answered with a picture all the same draws it from a stream of its own.
        return self.prompt(conversation, zlib.crc32(request.id.encode()))

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Said]:
        """Answer requests to draw, one seed each."""
        conversations = []
        for text in prompts:
            conversations.append(Conversation())
            conversations[-1].ask(text)
        settings = replace(self.settings, max_images=1, batch_size=max(1, len(prompts)))
        reserve = self.model.schedule.num_tokens + 2  # the picture between its start and its end
        answers = self.reply(conversations, list(seeds), settings, reserve)
        wanted = [request in self.scales_for for request in zip(prompts, seeds, strict=True)]
        return [self._said(answer, scales) for answer, scales in zip(answers, wanted, strict=True)]

    def _said(self, answer: Answer, scales: bool = False) -> Said:
        parts = [
            Shown(part.image, self._scales(part.indices) if scales else ()) if isinstance(part, DrawnPart) else part
            for part in answer.parts
        ]
        return Said(tuple(parts), _FINISH[answer.finished])

    @torch.inference_mode()
    def _scales(self, indices_L: Tensor) -> tuple[Image.Image, ...]:
        """The picture after each scale."""
        tokenizer = self.model.image_tokenizer
        idx_1L = indices_L[None].to(next(tokenizer.parameters()).device)
        return tuple(to_images(picture)[0] for picture in tokenizer.progressive(idx_1L))

    @torch.inference_mode()
    def reconstruct(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Send pictures through the image tokenizer and back."""
        tokenizer = self.model.image_tokenizer
        reader = PictureReader(tokenizer.picture_size)
        x_B3HW = torch.stack([reader.to_tensor(picture) for picture in pictures])
        return to_images(tokenizer.reconstruct(x_B3HW.to(next(tokenizer.parameters()).device)))


class OwnSystem:
    """A speaker as benchmarks know a system: with a name, the weights' hash, and all else that its outputs depend on.

    Args:
        speaker: answers and draws.
        name: what tables call it.
    """

    batch_size = 16

    def __init__(self, speaker: Speaker, name: str) -> None:
        self.speaker, self.name = speaker, name

    @cached_property
    def digest(self) -> str:
        """A hash of all weights."""
        return self.speaker.digest

    @property
    def settings(self) -> dict[str, Any]:
        """Precision, sampling and versions."""
        generation = self.speaker.settings
        visual = generation.visual or self.speaker.model.sampling_settings()
        words = asdict(replace(generation, visual=None))
        if not generation.stop:
            del words["stop"]  # so that outputs made before there was this setting are known again
        versions = package_versions()
        return {
            "adapter": "ours",
            "dtype": str(next(self.speaker.model.parameters()).dtype).removeprefix("torch."),
            # how many are asked together changes nothing, and scales are only shown
            **{key: value for key, value in words.items() if key not in ("visual", "batch_size", "keep_scales")},
            "visual": asdict(visual),
            "tokenizer": hashlib.sha256(repr(self.speaker.tokenizer.__getstate__()).encode()).hexdigest()[:16],
            "torch": versions.get("torch", ""),
            "vargpt_lightning": versions.get("vargpt-lightning", ""),
        }

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Said]:
        """Answer questions about pictures."""
        return self.speaker.answer(requests)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Said]:
        """Answer requests to draw."""
        return self.speaker.draw(prompts, seeds)
