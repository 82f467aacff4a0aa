"""Any image-text-to-text model of transformers, from a local directory or the hub: it answers, and some of them draw.

Answers are greedy, and a batch gives what each question alone gives: prompts are padded on the left, and where pictures
of different sizes would change one another they are asked apart. Whatever the model's own `generation_config.json` says
of penalties stays, and is part of `settings`.

Legend: B rows, T tokens of the padded prompts, S tokens of prompts and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.base.protocols import AnswerRequest, RefusedError, Reply
from vargpt_lightning.evaluation.systems.model_files import check_files, files_digest, first_line, locate
from vargpt_lightning.evaluation.systems.model_loading import load_parts
from vargpt_lightning.evaluation.systems.picture_models import DrawSettings, painter
from vargpt_lightning.evaluation.systems.wording import choose_template, wording
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError

# Pictures of one batch are padded to one size before these models encode them, and the padding shows in the codes.
_ONE_SIZE = ("emu3",)
# What processors raise for a picture or a text that they cannot take.
_UNFIT = (ValueError, TypeError, RuntimeError, IndexError, KeyError, ZeroDivisionError)


@dataclass(frozen=True)
class TransformersSettings:
    """How a transformers model is run.

    Args:
        dtype: auto (as the weights are stored), float32, bfloat16 or float16.
        device: such as cuda:0; None takes a GPU when there is one.
        template: one of `wording.TEMPLATES`.
        max_new_tokens: of an answer whose request names no length.
        batch_size: requests that may be asked together, for who asks them.
        generation: passed on to the model's `generate`, over what its own configuration says.
        drawing: how pictures are drawn.

    Raises:
        UserError: a number below 1.
    """

    dtype: str = "auto"
    device: str | None = None
    template: str = "auto"
    max_new_tokens: int = 256
    batch_size: int = 8
    generation: Mapping[str, Any] = field(default_factory=dict)
    drawing: DrawSettings = field(default_factory=DrawSettings)

    def __post_init__(self) -> None:
        for key in ("max_new_tokens", "batch_size"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}: {getattr(self, key)}; expected 1 or more")


class TransformersModel:
    """An image-text-to-text model with its processor; implements `TextModel`, and `ImageModel` for Janus and Emu3.

    Args:
        model: a local directory or a hub id.
        options: how it is run.

    Raises:
        UserError: there is no such model, files of it are missing or broken, its kind is unknown here or is no
            image-text-to-text model, some of its weights are not there, or an option is out of its range.
    """

    def __init__(self, model: str | Path, options: TransformersSettings | None = None) -> None:
        self.options = options or TransformersSettings()
        self.folder = locate(model)
        check_files(self.folder)
        self.name = str(model).rstrip("/").removeprefix("./")
        self.model, self.processor = load_parts(self.folder, self.options.dtype, self.options.device)
        self.kind: str = self.model.config.model_type
        self.template = choose_template(self.options.template, self.processor, self.model.config)
        self.batch_size = self.options.batch_size
        self._word = wording(self.template, self.processor)
        self._text_first = bool(getattr(self.model.config.get_text_config(), "is_encoder_decoder", False))

    @cached_property
    def digest(self) -> str:
        """A hash of the model's files."""
        return files_digest(self.folder)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that an answer depends on besides the files."""
        versions = package_versions()
        return {
            "adapter": "transformers",
            "kind": self.kind,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "template": self.template,
            "decoding": "greedy",
            "generation": dict(self.options.generation),
            "max_new_tokens": self.options.max_new_tokens,
            "drawing": self.options.drawing.facts(self.kind),
            "transformers": versions.get("transformers", ""),
            "torch": versions.get("torch", ""),
        }

    # ---------------------------------------------------------------------------------------------------- answering

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Reply]:
        """Answer questions, the likeliest token at each step.

        Raises:
            RefusedError: pictures are empty or not such as the model takes, named with their questions.
        """
        if reasons := {request.id: reason for request in requests if (reason := self._wrong(request))}:
            raise RefusedError(reasons)
        replies: dict[int, Reply] = {}
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._group(request), []).append(place)
        for (length, *_), places in groups.items():
            found = self._answer_batch([requests[place] for place in places], length)
            replies |= dict(zip(places, found, strict=True))
        return [replies[place] for place in range(len(requests))]

    def _wrong(self, request: AnswerRequest) -> str:
        """Why a question cannot be asked, as far as this is seen without the processor; empty when it can."""
        name, count = f"question {request.id!r}", len(request.pictures)
        for number, picture in enumerate(request.pictures):
            if 0 in picture.size:
                return f"{name}: picture {number + 1} is empty: its size is {picture.size}"
        if self.template == "bare" and count != 1:
            return f"{name}: {count} pictures; a model of the kind {self.kind} takes one"
        return ""

    def _group(self, request: AnswerRequest) -> tuple[Any, ...]:
        """What requests that may be asked together have in common; first, the length of their answers."""
        sizes = tuple(picture.size for picture in request.pictures) if self.kind in _ONE_SIZE else ()
        return request.max_new_tokens or self.options.max_new_tokens, bool(request.pictures), sizes

    @torch.inference_mode()
    def _answer_batch(self, requests: Sequence[AnswerRequest], length: int) -> list[Reply]:
        encoded = dict(self._encode(requests).to(self.model.device, self.model.dtype))
        prompt_BT = encoded["input_ids"]
        out_BS = self.model.generate(**encoded, **self._decoding(length))
        if torch.equal(out_BS[:, : prompt_BT.shape[1]], prompt_BT):  # some return the answer alone
            out_BS = out_BS[:, prompt_BT.shape[1] :]
        texts = self.processor.tokenizer.batch_decode(out_BS, skip_special_tokens=True)
        return [Reply(text.strip(), finish=self._finish(row, length)) for text, row in zip(texts, out_BS, strict=True)]

    @torch.inference_mode()
    def probability(self, requests: Sequence[AnswerRequest], word: str) -> list[float]:
        """How likely an answer is to begin with a word (with its first token), of each request.

        Raises:
            RefusedError: pictures are empty or not such as the model takes, named with their questions.
        """
        if reasons := {request.id: reason for request in requests if (reason := self._wrong(request))}:
            raise RefusedError(reasons)
        token = self.processor.tokenizer(word, add_special_tokens=False)["input_ids"][0]
        found = [0.0] * len(requests)
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._group(request), []).append(place)
        for places in groups.values():
            encoded = dict(self._encode([requests[place] for place in places]).to(self.model.device, self.model.dtype))
            more = {"return_dict_in_generate": True, "output_logits": True}
            said = self.model.generate(**encoded, **self._decoding(1), **more)
            likely_B = said.logits[0].float().softmax(dim=-1)[:, token]
            for place, value in zip(places, likely_B.tolist(), strict=True):
                found[place] = value
        return found

    def _encode(self, requests: Sequence[AnswerRequest]) -> Any:
        """The model's inputs; when they cannot be made the error names the questions at fault."""
        try:
            return self._processed(requests)
        except _UNFIT as error:
            reasons = {request.id: reason for request in requests if (reason := self._refusal(request))}
            if not reasons:
                raise
            raise RefusedError(reasons) from error

    def _refusal(self, request: AnswerRequest) -> str:
        """What the processor has against a question alone; empty when there is nothing."""
        try:
            self._processed([request])
        except _UNFIT as error:
            sizes = ", ".join("x".join(map(str, picture.size)) for picture in request.pictures) or "none"
            return (
                f"question {request.id!r} with pictures of the sizes {sizes} is refused by the model's processor: "
                f"{first_line(error)}"
            )
        return ""

    def _processed(self, requests: Sequence[AnswerRequest]) -> Any:
        texts = [self._word(request.prompt, len(request.pictures)) for request in requests]
        pictures: list[Any] = [[picture.convert("RGB") for picture in request.pictures] for request in requests]
        if all(len(own) == 1 for own in pictures):  # a flat list is what every processor takes
            pictures = [own[0] for own in pictures]
        more: dict[str, Any] = {} if not any(request.pictures for request in requests) else {"images": pictures}
        bos = self.processor.tokenizer.bos_token
        if bos and texts[0].startswith(bos):
            more["add_special_tokens"] = False
        side = "right" if self._text_first else "left"
        encoded = self.processor(text=texts, return_tensors="pt", padding=True, padding_side=side, **more)
        if (reader := getattr(self.processor, "qformer_tokenizer", None)) is not None:
            # This part counts its positions from the left whatever the mask says: padding belongs on the right.
            own = reader(texts, return_tensors="pt", padding=True, padding_side="right")
            encoded["qformer_input_ids"], encoded["qformer_attention_mask"] = own["input_ids"], own["attention_mask"]
        return encoded

    def _decoding(self, length: int) -> dict[str, Any]:
        """What `generate` is told: the likeliest token until an end token or the length."""
        plain = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        ends = {"eos_token_id": self._ends, "pad_token_id": self.processor.tokenizer.pad_token_id}
        return {**plain, **ends, **self.options.generation, "max_new_tokens": length}

    @cached_property
    def _ends(self) -> list[int]:
        """The tokens that end an answer."""
        given = self.model.generation_config.eos_token_id
        given = self.processor.tokenizer.eos_token_id if given is None else given
        return [given] if isinstance(given, int) else list(given or [])

    def _finish(self, row_S: Tensor, length: int) -> str:
        if any(token in self._ends for token in row_S.tolist()):
            return "stop"
        return "length" if len(row_S) >= length else ""

    # ------------------------------------------------------------------------------------------------------ drawing

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        """Draw a picture for each prompt; each follows from its seed, whatever is drawn beside it.

        Raises:
            UserError: this kind of model does not draw.
        """
        draw = painter(self.model, self.processor, self.options.drawing)
        pictures = draw([self._drawing_words(prompt) for prompt in prompts], seeds) if prompts else []
        return [Reply("", (picture,)) for picture in pictures]

    def _drawing_words(self, prompt: str) -> str:
        # Emu3 draws from the bare description; Janus was trained on conversations.
        return prompt if self.kind == "emu3" else self._word(prompt, 0)


def with_options(**options: Any) -> TransformersSettings:
    """Settings from loose options; those of drawing among them are found by their names.

    Raises:
        UserError: an option that there is not.
    """
    own, drawing = TransformersSettings.__dataclass_fields__, DrawSettings.__dataclass_fields__
    if unknown := sorted(set(options) - set(own) - set(drawing)):
        raise UserError(f"option {unknown[0]!r}: expected one of {', '.join([*own, *drawing])}")
    mine = {key: value for key, value in options.items() if key in own}
    theirs = {key: value for key, value in options.items() if key in drawing and key not in own}
    settings = TransformersSettings(**mine)
    return replace(settings, drawing=replace(settings.drawing, **theirs)) if theirs else settings
