"""A scene: which shapes stand where, and its picture."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image

from vargpt_lightning.data.openmoji.pictures import on_white
from vargpt_lightning.data.scenes.layouts import LENGTH, UNIT, Layout, count_layouts, pair_layouts, single_layouts
from vargpt_lightning.data.scenes.shapes import BY_NAME, sprite

Kind = Literal["colour", "count", "pair"]
Relation = Literal["left of", "right of", "above", "below"]
INVERSE: dict[str, Relation] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Thing:
    """A shape in a colour."""

    shape: str
    colour: str

    @property
    def native(self) -> bool:
        """Whether it has the colour that it has where none is said."""
        return BY_NAME[self.shape].native == self.colour


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Args:
        kind: which skill it is for.
        things: from left to right or from top to bottom for a pair, equal ones for a count.
        relation: how the first thing stands to the second in a pair: "left of" or "above".
        named_colours: whether a request says the colours.
    """

    kind: Kind
    things: tuple[Thing, ...]
    relation: Relation | None = None
    named_colours: bool = True

    def described(self) -> dict[str, Any]:
        """Return the scene as plain values, which `scene_of` reads."""
        things = [[thing.shape, thing.colour] for thing in self.things]
        return {"kind": self.kind, "things": things, "relation": self.relation, "colours": self.named_colours}

    @property
    def cell(self) -> str:
        """The combination that the scene is about, as text: "apple, green", "3, apple", "apple, left of, kite"."""
        first = self.things[0]
        if self.kind == "colour":
            return f"{first.shape}, {first.colour}"
        if self.kind == "count":
            return f"{len(self.things)}, {first.shape}"
        return f"{first.shape}, {self.relation}, {self.things[1].shape}"


def scene_of(value: Mapping[str, Any]) -> Scene:
    """Return the scene that a record's or a picture's `scene` describes."""
    things = tuple(Thing(*each) for each in value["things"])
    return Scene(value["kind"], things, value["relation"], value["colours"])


@dataclass(frozen=True)
class ScenePicture:
    """A scene with its picture in one layout."""

    scene: Scene
    layout: Layout
    pixels_HWC: np.ndarray

    @cached_property
    def png(self) -> bytes:
        """The picture as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels_HWC).save(buffer, "PNG")
        return buffer.getvalue()

    @cached_property
    def sha(self) -> str:
        """What the picture is known by: a hash of its pixels."""
        return hashlib.sha256(self.pixels_HWC.tobytes()).hexdigest()[:16]


def layouts(scene: Scene) -> tuple[Layout, ...]:
    """Return all layouts that a scene may have."""
    if len(scene.things) == 1:
        return single_layouts()
    return count_layouts(len(scene.things)) if scene.relation is None else pair_layouts(scene.relation)


def draw_scene(scene: Scene, layout: Layout, size: int) -> ScenePicture:
    """Return the scene's picture at `size` pixels."""
    factor = size / UNIT
    canvas_HW3 = np.full((size, size, 3), 255, np.uint8)
    for thing, (x, y) in zip(scene.things, layout.centres, strict=True):
        rgba_HW4 = sprite(BY_NAME[thing.shape], thing.colour, round(LENGTH * factor))
        _paste(canvas_HW3, rgba_HW4, round(x * factor), round(y * factor))
    return ScenePicture(scene, layout, canvas_HW3)


def _paste(canvas_HW3: np.ndarray, rgba_HW4: np.ndarray, x: int, y: int) -> None:
    """Lay a sprite on the white canvas with its middle at (x, y), moved inside where it would leave it."""
    height, width = rgba_HW4.shape[:2]
    top = min(max(0, y - height // 2), canvas_HW3.shape[0] - height)
    left = min(max(0, x - width // 2), canvas_HW3.shape[1] - width)
    canvas_HW3[top : top + height, left : left + width] = on_white(rgba_HW4)
