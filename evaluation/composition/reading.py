"""What a picture shows: its things with shape, colour and place. What was asked for is not known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vargpt_lightning.data.scenes.scene import Relation
from vargpt_lightning.evaluation.base.files import rgb
from vargpt_lightning.evaluation.composition.colour_names import colour_name
from vargpt_lightning.evaluation.composition.objects import cut_out, regions

NameShapes = Callable[[Sequence[Image.Image]], list[str | None]]


@dataclass(frozen=True)
class SeenThing:
    """A thing found in a picture; its centre in pixels; None where it has no clear shape or colour."""

    shape: str | None
    colour: str | None
    centre: tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """All things found in a picture, from left to right."""

    things: tuple[SeenThing, ...]


def relation(first: SeenThing, second: SeenThing) -> Relation:
    """Return how the first thing stands to the second, along the axis on which they are farther apart."""
    x, y = (one - other for one, other in zip(first.centre, second.centre, strict=True))
    if abs(x) >= abs(y):
        return "left of" if x < 0 else "right of"
    return "above" if y < 0 else "below"


def read_pictures(pictures: Sequence[Image.Image], name_shapes: NameShapes) -> list[Reading]:
    """Return what each picture shows."""
    pixels = [np.asarray(rgb(picture)) for picture in pictures]
    found = [regions(each) for each in pixels]
    names = iter(name_shapes([cut_out(p, region) for p, those in zip(pixels, found, strict=True) for region in those]))
    return [
        Reading(tuple(SeenThing(next(names), colour_name(p[region.mask_HW]), region.centre) for region in those))
        for p, those in zip(pixels, found, strict=True)
    ]
