"""A trained run taken up again: its model, its tokenizer, and conversations with it.

    RUN/config.yaml                              `model:` is the VARGPTConfig
    RUN/tokenizer/tokenizer.json                 the text tokenizer
    RUN/stages/NN-name/model.safetensors         the model's state; that of the last finished stage is taken

Shape suffixes: S, H, W pixels, L visual tokens of a drawn picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vargpt_lightning.data.caches import weights_hash
from vargpt_lightning.data.chat import ChatTemplate
from vargpt_lightning.data.pictures import PictureReader
from vargpt_lightning.data.records import DRAWN, SEEN, Part, PicturePart, TextPart, Turn
from vargpt_lightning.data.text_tokenizer import TextTokenizer
from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.protocols import AnswerRequest
from vargpt_lightning.models import checkpoints
from vargpt_lightning.models.answers import Answer, GenerationSettings, Prompt, to_images
from vargpt_lightning.models.answers import PicturePart as DrawnPart
from vargpt_lightning.models.config import TokenIds, VARGPTConfig, VisionConfig
from vargpt_lightning.models.generate import generate
from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.results import RunFolder, StageFolder

_SCALINGS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3),
}


def seen_reader(config: VisionConfig) -> PictureReader:
    """Return how pictures are read for the vision tower: its size, and the mean and deviation of its own training."""
    if config.kind == "none":
        raise UserError("this model sees no pictures (vision.kind is 'none'); expected words alone")
    mean, std = _SCALINGS[config.kind]
    return PictureReader(config.picture_size, mean, std, fit="pad")


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
            elif part.text.strip():
                parts.append(TextPart(part.text.strip()))
        self.turns.append(Turn("assistant", tuple(parts)))


@dataclass(frozen=True)
class Shown:
    """A drawn picture as evaluation takes it, with the pictures after each scale."""

    image: Image.Image
    progress: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Said:
    """An answer as evaluation takes it: parts with `text`, or with `image` and `progress`."""

    parts: tuple[Any, ...]


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
            torch.stack([conversation.pictures[part.key] for part in parts]) if parts else None
            for parts in (rendered.seen, rendered.drawn)
        )
        return Prompt(rendered.ids, pixel_values=seen, drawn_indices=drawn, row=row)

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

    def answer(self, requests: Sequence[AnswerRequest]) -> list[Said]:
        """Answer questions about pictures, the likeliest token at each step."""
        conversations = []
        for request in requests:
            conversations.append(Conversation())
            conversations[-1].ask(request.prompt, {request.id: self.see(request.picture)})
        # A question that is answered with a picture all the same draws it from a stream of its own.
        rows = [zlib.crc32(request.id.encode()) for request in requests]
        settings = replace(self.settings, temperature=0.0, max_images=1, batch_size=max(1, len(requests)))
        return [self._said(answer) for answer in self.reply(conversations, rows, settings)]

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
        return Said(tuple(parts))

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


@dataclass(kw_only=True)
class LoadedRun(Speaker):
    """The speaker of a run folder, as it was after `stage`; `experiment` is the run's whole configuration."""

    folder: RunFolder
    stage: StageFolder
    experiment: dict[str, Any]


def load_run(path: str | Path, stage: str | None = None, device: str | torch.device | None = None) -> LoadedRun:
    """Load a run's model as it was after a stage, in evaluation mode.

    Args:
        path: the run folder.
        stage: the stage's name; None takes the last finished one.
        device: None takes a GPU when there is one.

    Raises:
        UserError: the folder is no run, has no finished stage, or its files are missing, broken or do not fit together.
    """
    folder = RunFolder(path)
    chosen = _stage(folder, stage)
    experiment = read_experiment(folder)
    config = VARGPTConfig.from_dict(experiment["model"])
    tokenizer = TextTokenizer.load(folder.tokenizer)
    _check_tokens(config, tokenizer, folder)
    model = VARGPT(config)
    _load_weights(model, chosen.weights)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().requires_grad_(False).to(device)
    return LoadedRun(model=model, tokenizer=tokenizer, folder=folder, stage=chosen, experiment=experiment)


def read_experiment(folder: RunFolder) -> dict[str, Any]:
    """Return the run's resolved configuration, which has a `model` section.

    Raises:
        UserError: config.yaml is missing, is no YAML, or has no such section.
    """
    file = folder.path / "config.yaml"
    try:
        experiment = yaml.safe_load(folder.config_text)
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not readable as YAML: {error}") from error
    if not isinstance(experiment, dict) or not isinstance(experiment.get("model"), dict):
        there = "there is no such file" if not file.is_file() else f"it holds {_keys(experiment)}"
        raise UserError(f"{file}: expected a run's configuration with a section `model`; {there}")
    return experiment


def _keys(experiment: Any) -> str:
    return f"the keys {', '.join(map(str, experiment))}" if isinstance(experiment, dict) else "no keys"


def _stage(folder: RunFolder, name: str | None) -> StageFolder:
    """The stage asked for, or the last finished one; it has weights."""
    stages = [stage for stage in folder.stages() if stage.status == "finished"]
    there = ", ".join(f"{stage.name} ({stage.status})" for stage in folder.stages()) or "none"
    if name is not None:
        stages = [stage for stage in stages if stage.name == name]
    if not stages:
        wanted = f"finished stage {name!r}" if name else "finished stage"
        raise UserError(f"{folder.path} has no {wanted}; its stages are: {there}")
    if not stages[-1].weights.is_file():
        raise UserError(f"{stages[-1].weights} is missing, although the stage {stages[-1].name} is finished")
    return stages[-1]


def _check_tokens(config: VARGPTConfig, tokenizer: TextTokenizer, folder: RunFolder) -> None:
    """Refuse a tokenizer whose special tokens are not those that the model was trained with."""
    for key in TokenIds.__dataclass_fields__:
        expected, found = getattr(config.tokens, key), getattr(tokenizer, f"{key}_id")
        if expected != found:
            raise UserError(f"{folder.tokenizer}: token {key} has id {found}, the model expects {expected}")
    if tokenizer.vocabulary > config.language.vocabulary:
        rows = config.language.vocabulary
        raise UserError(f"{folder.tokenizer}: {tokenizer.vocabulary} token ids, the model's embedding has {rows} rows")


def _load_weights(model: VARGPT, file: Path) -> None:
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not readable as safetensors: {error}") from error
    # The frozen EfficientNet comes with its package and is not stored again.
    own = model.config.vision.kind == "efficientnet_lite0" and not any(key.startswith("vision_tower.") for key in state)
    keep = [key for key in model.state_dict() if own and key.startswith("vision_tower.")]
    checkpoints.load(model, state, source=str(file), keep=keep)
