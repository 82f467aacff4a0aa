"""The shapes of scenes, and their pictures in eight colours: fills of an SVG file replaced, outlines kept.

A shape is one of OpenMoji's pictures that passes these rules:

- one named colour covers at least 85 % of its filled area, so that it is what people call a red or a green one;
- it is one connected piece at the smallest size that scenes show it at;
- its name is a countable noun of at most two words without a colour in it;
- no other shape's outline is like it: their masks at the smallest size overlap by less than 85 %.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from vargpt_lightning.data.openmoji.pictures import render, svg_file

# Of each colour the tone of large areas and the darker one of shades. Apart in hue or lightness after compression too.
COLOURS: dict[str, tuple[str, str]] = {
    "red": ("#d22f27", "#9f2019"),
    "orange": ("#f4922f", "#d3700f"),
    "yellow": ("#fcea2b", "#e3c21a"),
    "green": ("#5c9e31", "#42761f"),
    "blue": ("#4a90d9", "#1e50a0"),
    "purple": ("#8967aa", "#664a85"),
    "pink": ("#ffa7c0", "#e67a94"),
    "brown": ("#8a5a36", "#6a462f"),
}
_TINT = 0.4  # share of white in tones that are lighter than a shape's main one
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b")


@dataclass(frozen=True)
class Shape:
    """A recolourable shape: what it is called, its code point in OpenMoji, its tones there, and their colour."""

    name: str
    plural: str
    codepoint: str
    tones: tuple[str, ...]  # in lower case, the one of the largest area first
    native: str  # the colour that it has where none is said


def _shape(name: str, codepoint: str, native: str, *tones: str, plural: str = "") -> Shape:
    return Shape(name, plural or f"{name}s", codepoint, tones, native)


SHAPES: tuple[Shape, ...] = (
    _shape("apple", "1F34E", "red", "#ea5a47", "#d22f27"),
    _shape("balloon", "1F388", "red", "#ea5a47", "#d22f27"),
    _shape("banana", "1F34C", "yellow", "#f1b31c", "#fcea2b"),
    _shape("bell", "1F514", "yellow", "#fcea2b", "#f1b31c"),
    _shape("bolt", "26A1", "yellow", "#fcea2b"),
    _shape("boot", "1F462", "brown", "#a57939", "#6a462f"),
    _shape("butterfly", "1F98B", "blue", "#92d3f5", plural="butterflies"),
    _shape("cactus", "1F335", "green", "#b1cc33", plural="cactuses"),
    _shape("cat", "1F408", "orange", "#f4aa41", "#e27022"),
    _shape("circle", "1F534", "red", "#d22f27"),
    _shape("crab", "1F980", "red", "#d22f27", "#ea5a47"),
    _shape("crown", "1F451", "yellow", "#fcea2b", "#f1b31c"),
    _shape("diamond", "1F537", "blue", "#92d3f5"),
    _shape("dress", "1F457", "blue", "#61b2e4", plural="dresses"),
    _shape("drop", "1F4A7", "blue", "#92d3f5", "#61b2e4"),
    _shape("fish", "1F41F", "blue", "#92d3f5", "#61b2e4", plural="fish"),
    _shape("heart", "2665", "red", "#ea5a47"),
    _shape("horse", "1F40E", "brown", "#a57939", "#6a462f"),
    _shape("kite", "1FA81", "pink", "#e67a94", "#ffa7c0"),
    _shape("leaf", "1F341", "orange", "#f4aa41", plural="leaves"),
    _shape("moon", "1F319", "yellow", "#fcea2b", "#f1b31c"),
    _shape("octopus", "1F419", "red", "#d22f27", "#ea5a47", plural="octopuses"),
    _shape("puzzle piece", "1F9E9", "blue", "#92d3f5", "#61b2e4"),
    _shape("snail", "1F40C", "brown", "#6a462f", "#a57939"),
    _shape("square", "1F7E5", "red", "#d22f27"),
    _shape("star", "2B50", "yellow", "#fcea2b"),
    _shape("T-shirt", "1F455", "blue", "#61b2e4", "#92d3f5"),
    _shape("tree", "1F332", "green", "#5c9e31"),
    _shape("trophy", "1F3C6", "yellow", "#fcea2b", "#f1b31c", plural="trophies"),
    _shape("turtle", "1F422", "green", "#5c9e31", "#b1cc33"),
    _shape("umbrella", "2602", "purple", "#b399c8", "#8967aa"),
    _shape("whale", "1F40B", "blue", "#61b2e4"),
)
BY_NAME = {shape.name: shape for shape in SHAPES}


@cache
def _svg(codepoint: str) -> str:
    return svg_file(codepoint).read_text(encoding="utf-8")


def recoloured(shape: Shape, colour: str) -> str:
    """Return the shape's SVG text with its tones replaced by those of a colour of `COLOURS`."""
    base, shade = COLOURS[colour]
    main = _lightness(shape.tones[0])
    new = {shape.tones[0]: base}
    for tone in shape.tones[1:]:
        new[tone] = shade if _lightness(tone) < main else _tinted(base)
    return _HEX.sub(lambda match: new.get(_long(match[0]), match[0]), _svg(shape.codepoint))


@cache
def sprite(shape: Shape, colour: str, size: int) -> np.ndarray:
    """Return the shape in a colour, cropped to its ink: (H, W, 4) uint8, its longer side `size` pixels or one off."""
    rgba_HW4 = render(recoloured(shape, colour), max(1, round(_PROBE * size / _longer_side(shape))))
    top, bottom, left, right = _box(rgba_HW4)
    return rgba_HW4[top:bottom, left:right]


@cache
def _longer_side(shape: Shape) -> int:
    """How much of the drawing sheet the shape takes, of `_PROBE` pixels: its colour changes nothing about it."""
    top, bottom, left, right = _box(render(_svg(shape.codepoint), _PROBE))
    return max(bottom - top, right - left)


_PROBE = 256
_INK = 24  # alpha above which a pixel is part of the shape


def _box(rgba_HW4: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(rgba_HW4[..., 3] > _INK)
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def _long(code: str) -> str:
    code = code.lower()
    return code if len(code) == 7 else "#" + "".join(2 * digit for digit in code[1:])


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def _lightness(code: str) -> float:
    red, green, blue = _rgb(code)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _tinted(code: str) -> str:
    return "#" + "".join(f"{round(value + (255 - value) * _TINT):02x}" for value in _rgb(code))
