"""What goes into generation and what comes out: prompts, answers and the settings between them.

Legend: P seen pictures, N feature tokens, Q drawn pictures, L visual tokens of all scales, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.models.decoder.sampling import COLDEST, HOTTEST, SamplingSettings
from vargpt_lightning.models.images import to_images as to_images
from vargpt_lightning.utils.errors import UserError

Finish = Literal["end", "length", "picture", "stop", "stopped"]
MOST_SEED = 2**63 - 1
MOST_STOPS = 4


@dataclass(frozen=True)
class Prompt:
    """The context of one answer, rendered to token ids; its pictures stand in it as in a training row.

    A prompt that ends with the start token of a picture is answered by drawing at once.

    Args:
        input_ids: N `<image>` ids for each seen picture; start, L `<image_gen>` ids and end for each drawn one.
        pixel_values: seen pictures (P, 3, S, S), normalised for the tower, or
        vision_features: what the tower gave for them, (P, N, C).
        drawn_indices: codes (Q, L) of the pictures drawn earlier, or of each by itself where their sizes differ, or
        drawn_pixels: those pictures (Q, 3, H, W) in [-1, 1].
        drawn_sizes: which of the model's sizes each of them has; the first without.
        row: names the prompt's own random stream; None takes its place in the list.
        settings: of this answer alone; None takes those of all. `batch_size` has no effect here.
        seed: of that stream; None takes the settings'.
        request: what is asked for, in words; scorers of candidates are told it.
        seen_shapes: rows and columns (P, 2) of the pictures of `vision_features`, for language models that count them.
    """

    input_ids: Sequence[int]
    pixel_values: Tensor | None = None
    vision_features: Tensor | None = None
    drawn_indices: Tensor | Sequence[Tensor] | None = None
    drawn_pixels: Tensor | None = None
    drawn_sizes: Sequence[int] = ()
    row: int | None = None
    seed: int | None = None
    settings: GenerationSettings | None = None
    request: str = ""
    seen_shapes: Tensor | None = None


@dataclass(frozen=True)
class TextPart:
    """Text between two pictures, without white space around it, and the token ids that it was made of."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class PicturePart:
    """A drawn picture with its codes (L,).

    `scales` are the pictures after each scale, and `logits` (L, V) the guided logits before temperature and filters,
    when they were asked for; `size` is that of the settings.
    """

    image: Image.Image
    indices: Tensor
    scales: tuple[Image.Image, ...] = ()
    logits: Tensor | None = None
    size: int = 0


@dataclass
class Answer:
    """An answer: text and pictures in their order.

    Attributes:
        parts: text and pictures.
        token_ids: everything the sequence has after the prompt, visual placeholders and special tokens too: prompt
            ids, these, and `drawn_indices` are the context of the next turn.
        finished: why it ended: the end token, the length, after its picture (setting `after_image`), a text of the
            setting `stop`, or ("stopped") because who watched it had enough.
    """

    parts: list[TextPart | PicturePart] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finished: Finish = "length"

    @property
    def text(self) -> str:
        """The texts of all parts, a line each; pictures are left out."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def pictures(self) -> list[PicturePart]:
        """The drawn pictures in their order."""
        return [part for part in self.parts if isinstance(part, PicturePart)]

    @property
    def drawn_indices(self) -> Tensor | None:
        """Codes (Q, L) of the drawn pictures, None without any."""
        codes = [picture.indices for picture in self.pictures]
        return torch.stack(codes) if codes else None


class Watcher:
    """Is told of answers while they are made; a subclass overrides what it wants to know.

    It is called between two steps of the model; `row` is the prompt's place in the list that is answered. Prompts that
    join later have the places behind that list, in their order.
    """

    def joining(self, running: int) -> Sequence[Prompt]:
        """Prompts that are answered too from now on, beside `running` others; their answers come by `ended` alone."""
        return ()

    def ended(self, row: int, answer: Answer) -> None:
        """An answer is finished."""

    def failed(self, row: int, error: Exception) -> bool:
        """Whether the others go on after an answer has failed; it is then over, and otherwise the error is raised."""
        return False

    def text(self, row: int, text: str) -> None:
        """The text since the answer's start, or since its last picture, as far as it is written."""

    def wants_scales(self, row: int) -> bool:
        """Whether `scale` is called for this row: a picture is then decoded after each scale."""
        return False

    def scale(self, row: int, k: int, image: Image.Image) -> None:
        """The picture as it is after scale k."""

    def part(self, row: int, part: TextPart | PicturePart) -> None:
        """A part of the answer is finished."""

    def gone(self, row: int) -> bool:
        """Whether nobody waits for this answer any more: it ends then, as "stopped"."""
        return False


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated.

    Args:
        max_new_tokens: text tokens of an answer, start tokens of pictures included.
        max_images: pictures of an answer; once there, no more are begun.
        temperature: of text; 0 takes the likeliest token.
        text_top_k, text_top_p: tokens kept when text is sampled; 0 keeps all.
        visual: how codes are drawn; None takes the model's preset.
        seed: with a prompt's row it seeds the stream of that prompt, so that neighbours change nothing.
        batch_size: prompts answered together.
        keep_scales: also decode the picture after each scale.
        keep_logits: also keep the guided logits that each drawing's codes were drawn from.
        stop: texts before which an answer ends, four at most; the answer holds none of them.
        size: which of the model's sizes pictures have (see `inference.sizes` for those of words).

    Raises:
        UserError: a value is out of its range.
    """

    max_new_tokens: int = 256
    max_images: int = 4
    temperature: float = 0.0
    text_top_k: int = 0
    text_top_p: float = 0.0
    visual: SamplingSettings | None = None
    seed: int = 0
    batch_size: int = 16
    keep_scales: bool = False
    keep_logits: bool = False
    stop: tuple[str, ...] = ()
    size: int = 0

    def __post_init__(self) -> None:
        for key, kind in _KINDS.items():
            value = getattr(self, key)
            if not isinstance(value, kind):
                raise UserError(f"{key}: got {value!r}, expected {_EXPECTED[key]}")
        checks = {
            "max_new_tokens": self.max_new_tokens >= 1,
            "max_images": self.max_images >= 0,
            "temperature": self.temperature == 0 or COLDEST <= self.temperature <= HOTTEST,
            "text_top_k": self.text_top_k >= 0,
            "text_top_p": 0 <= self.text_top_p <= 1,
            "seed": -MOST_SEED - 1 <= self.seed <= MOST_SEED,
            "batch_size": self.batch_size >= 1,
            "size": self.size >= 0,
            "stop": len(self.stop) <= MOST_STOPS and all(isinstance(text, str) and text for text in self.stop),
        }
        for key, fine in checks.items():
            if not fine:
                raise UserError(f"{key}: got {getattr(self, key)!r}, expected {_EXPECTED[key]}")


_EXPECTED = {
    "max_new_tokens": "1 or more",
    "max_images": "0 or more",
    "temperature": f"0 (the likeliest token) or a number from {COLDEST:g} to {HOTTEST:g}",
    "text_top_k": "0 (keep all) or more",
    "text_top_p": "a number from 0 to 1",
    "seed": "a whole number from -2**63 to 2**63 - 1",
    "batch_size": "1 or more",
    "size": "the number of one of the model's sizes, from 0",
    "visual": "SamplingSettings, or None for the model's preset",
    "stop": f"{MOST_STOPS} texts at most, none of them empty",
}


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("max_new_tokens", "max_images", "text_top_k", "seed", "batch_size", "size"), Integral),
    **dict.fromkeys(("temperature", "text_top_p"), Real),
    "visual": (SamplingSettings, type(None)),
    "stop": (tuple, list),
}
