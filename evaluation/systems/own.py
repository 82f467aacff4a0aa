"""Native models under test: an assistant asked as evaluation asks, and named as benchmarks know a system.

Shape suffixes: L visual tokens of a drawn picture.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, RefusedError, Talk
from vargpt_lightning.evaluation.systems.scorers import find_scorer
from vargpt_lightning.inference.assistant import Assistant, Conversation, seen_reader
from vargpt_lightning.models.generation.answers import Answer, Prompt, to_images
from vargpt_lightning.models.generation.answers import PicturePart as DrawnPart
from vargpt_lightning.models.generation.generate import first_token_logits
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError


@dataclass(frozen=True)
class DrawnReply:
    """A drawn picture as evaluation takes it, with the pictures after each scale."""

    image: Image.Image
    progress: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class PartedReply:
    """An answer as evaluation takes it: parts with `text`, or with `image` and `progress`; and why it ended."""

    parts: tuple[Any, ...]
    finish: str = ""


_FINISH = {"end": "stop", "picture": "stop", "length": "length", "stop": "stop", "stopped": "stop"}


class OwnModel:
    """An assistant as an `TextModel` and `ImageModel`: it answers greedily, and drawings follow from their seeds.

    Args:
        scales_for: prompts and seeds of the drawings that come with the pictures after each scale.
    """

    def __init__(self, assistant: Assistant, scales_for: frozenset[tuple[str, int]] = frozenset()) -> None:
        self.assistant, self.scales_for = assistant, scales_for
        assistant.scorers = assistant.scorers or find_scorer

    def answer(self, requests: Sequence[AnswerRequest]) -> list[PartedReply]:
        """Answer questions about pictures, the likeliest token at each step; each as long as it and the context allow.

        Raises:
            RefusedError: a picture is empty, or a question leaves no room for an answer in the context.
            UserError: this model sees no pictures.
        """
        prompts = self._questions(requests)
        groups: dict[int | None, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(request.max_new_tokens, []).append(place)
        said: dict[int, PartedReply] = {}
        for length, places in groups.items():
            said |= zip(places, self._answer([prompts[place] for place in places], length), strict=True)
        return [said[place] for place in range(len(requests))]

    def _answer(self, prompts: Sequence[Prompt], length: int | None) -> list[PartedReply]:
        settings = replace(self.assistant.settings, temperature=0.0, max_images=1, batch_size=max(1, len(prompts)))
        settings = settings if length is None else replace(settings, max_new_tokens=length)
        return [self._said(answer) for answer in self.assistant.continue_all(prompts, settings)]

    def probability(self, requests: Sequence[AnswerRequest], word: str) -> list[float]:
        """How likely an answer is to begin with a word (with its first token), of each request.

        Raises:
            RefusedError: a picture is empty, or a question does not fit into the context.
            UserError: this model sees no pictures.
        """
        token = self.assistant.tokenizer.encode(word)[0]
        settings = replace(self.assistant.settings, max_images=1, max_new_tokens=1, batch_size=max(1, len(requests)))
        logits_RV = first_token_logits(self.assistant.model, self._questions(requests), settings)
        likely: list[float] = logits_RV.softmax(dim=-1)[:, token].tolist()
        return likely

    def _questions(self, requests: Sequence[AnswerRequest]) -> list[Prompt]:
        """The requests as the model reads them; all that are refused are named at once."""
        if any(request.pictures for request in requests):
            seen_reader(self.assistant.model.config.vision)  # a model that sees nothing is no fault of a question
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
            seen[f"{request.id}/{number}"] = self.assistant.see(picture)
        conversation = Conversation()
        conversation.ask(request.prompt, seen)
        # A question that is answered with a picture all the same draws it from a stream of its own.
        return self.assistant.prompt(conversation, zlib.crc32(request.id.encode()))

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[PartedReply]:
        """Answer requests to draw, one seed each."""
        answers = self._drawn(prompts, [{} for _ in prompts], seeds)
        wanted = [request in self.scales_for for request in zip(prompts, seeds, strict=True)]
        return [self._said(answer, scales) for answer, scales in zip(answers, wanted, strict=True)]

    def edit(self, prompts: Sequence[str], pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[PartedReply]:
        """Answer requests to change a picture, one picture and one seed each.

        Raises:
            UserError: this model sees no pictures, or one leaves no room for another in the context.
        """
        shown = [{"shown": self.assistant.see(picture)} for picture in pictures]
        return [self._said(answer) for answer in self._drawn(prompts, shown, seeds)]

    def _drawn(
        self, prompts: Sequence[str], shown: Sequence[Mapping[str, Tensor]], seeds: Sequence[int]
    ) -> list[Answer]:
        conversations = []
        for text, pictures in zip(prompts, shown, strict=True):
            conversations.append(Conversation())
            conversations[-1].ask(text, pictures)
        settings = replace(self.assistant.settings, max_images=1, batch_size=max(1, len(prompts)))
        reserve = self.assistant.picture_tokens(settings.size) + 2  # the picture between its start and its end
        return self.assistant.reply(conversations, list(seeds), settings, reserve)

    def talk(self, talks: Sequence[Talk]) -> list[list[PartedReply]]:
        """Hold conversations side by side, turn by turn; where the context is full the oldest turns are forgotten."""
        held = [Conversation() for _ in talks]
        replies: list[list[PartedReply]] = [[] for _ in talks]
        for turn in range(max((len(talk.turns) for talk in talks), default=0)):
            going = [place for place, talk in enumerate(talks) if turn < len(talk.turns)]
            for place in going:
                held[place].ask(talks[place].turns[turn])
                self.assistant.forget_oldest(held[place])
            settings = replace(self.assistant.settings, max_images=1, batch_size=len(going))
            rows = [zlib.crc32(f"{talks[place].id}:{talks[place].seed}:{turn}".encode()) for place in going]
            for place, answer in zip(
                going, self.assistant.reply([held[place] for place in going], rows, settings), strict=True
            ):
                held[place].add(answer)
                replies[place].append(self._said(answer))
        return replies

    def _said(self, answer: Answer, scales: bool = False) -> PartedReply:
        parts = [
            DrawnReply(part.image, self._scales(part) if scales else ()) if isinstance(part, DrawnPart) else part
            for part in answer.parts
        ]
        return PartedReply(tuple(parts), _FINISH[answer.finished])

    @torch.inference_mode()
    def _scales(self, part: DrawnPart) -> tuple[Image.Image, ...]:
        """The picture after each scale."""
        tokenizer = self.assistant.model.at(part.size).image_tokenizer
        idx_1L = part.indices[None].to(next(tokenizer.parameters()).device)
        return tuple(to_images(picture)[0] for picture in tokenizer.progressive(idx_1L))


class OwnSystem(OwnModel):
    """A native model as benchmarks know a system: its name, its weights' hash, and all else that outputs depend on.

    Args:
        name: what tables call it.
    """

    batch_size = 16

    def __init__(self, assistant: Assistant, name: str) -> None:
        super().__init__(assistant)
        self.name = name

    @cached_property
    def digest(self) -> str:
        """A hash of all weights."""
        return self.assistant.digest

    @property
    def settings(self) -> dict[str, Any]:
        """Precision, sampling and versions."""
        generation = self.assistant.settings
        visual = generation.visual or self.assistant.model.sampling_settings()
        words = asdict(replace(generation, visual=None))
        for key in ("stop", "size"):
            if not words[key]:
                del words[key]  # so that outputs made before there was this setting are known again
        versions = package_versions()
        return {
            "adapter": "ours",
            "dtype": str(next(self.assistant.model.parameters()).dtype).removeprefix("torch."),
            # how many are asked together changes nothing, and scales are only shown
            **{
                key: value
                for key, value in words.items()
                if key not in ("visual", "batch_size", "keep_scales", "keep_logits")
            },
            "visual": visual.recorded(),
            "tokenizer": hashlib.sha256(repr(self.assistant.tokenizer.__getstate__()).encode()).hexdigest()[:16],
            "torch": versions.get("torch", ""),
            "vargpt_lightning": versions.get("vargpt-lightning", ""),
        }
