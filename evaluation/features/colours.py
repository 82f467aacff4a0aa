"""The colour of a detected object: which of some words CLIP finds likest to what is inside its box.

What lies outside of the object's mask, where there is one, becomes grey before the box is cut out (GenEval's rule,
github.com/djghosh13/geneval, evaluate_images.py).

Shapes: B objects, N colours, D embedding channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from vargpt_lightning.evaluation.base.prompt_benchmark import Detection
from vargpt_lightning.evaluation.features.clip import ClipModel

GROUND = "#999"


class ColourClassifier:
    """Names colours of objects.

    Args:
        model: embeds pictures and texts.
        colours: the words.
        texts: sentences with {colour} and {label} in them, whose embeddings are averaged.
    """

    def __init__(self, model: ClipModel, colours: Sequence[str], texts: Sequence[str]) -> None:
        self.model, self.colours, self.texts = model, tuple(colours), tuple(texts)
        self._known: dict[str, Tensor] = {}

    def __call__(self, picture: Image.Image, objects: Sequence[Detection]) -> list[Detection]:
        """The objects with their colours."""
        if not objects:
            return []
        seen_BD = normalize(self.model.pictures([_alone(picture, each) for each in objects]), dim=-1)
        words = [self._words(each.label) for each in objects]
        best = [int((words_ND @ seen_D).argmax()) for words_ND, seen_D in zip(words, seen_BD, strict=True)]
        return [replace(each, colour=self.colours[place]) for each, place in zip(objects, best, strict=True)]

    def _words(self, label: str) -> Tensor:
        """Embeddings of the colours of a class, (N, D)."""
        if label not in self._known:
            rows = []
            for colour in self.colours:
                texts = [text.format(colour=colour, label=label) for text in self.texts]
                rows.append(normalize(self.model.texts(texts)[0], dim=-1).mean(dim=0))
            self._known[label] = normalize(torch.stack(rows), dim=-1)
        return self._known[label]


def _alone(picture: Image.Image, seen: Detection) -> Image.Image:
    """What is inside an object's box, grey around its mask; at least a pixel."""
    picture = picture.convert("RGB")
    if seen.mask is not None:
        picture = Image.composite(picture, Image.new("RGB", picture.size, GROUND), Image.fromarray(seen.mask))
    left, top, right, bottom = (round(side) for side in seen.box)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
