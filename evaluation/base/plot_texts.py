"""Texts of plots as they are written: names of classes, runs and settings are no formulas, and may be in any script.

matplotlib reads what stands between two dollar signs as a formula, and fails at one that it does not know; a letter
that its font lacks becomes an empty box, with a warning for each.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOX = "\u25a1"


def plain_texts(figure: Figure, keep: bool = False) -> Figure:
    """Make all texts of a figure literal, in fonts that have their letters; say once where there is no such font.

    Args:
        keep: leave letters without a font as they are, as in an SVG whose reader has fonts of its own; else they become
            boxes.
    """
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]  # which makes them
            shown = [label if keep else _boxed(label) for label in labels]
            if shown != labels:  # a tick's text is made anew at each drawing
                axis.set_ticks(axis.get_ticklocs(), shown)
    powers = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if axis.get_scale() == "log"
        for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if id(text) not in powers:
            text.set_parse_math(False)
        lost = _lost(text.get_text())
        if lost and (found := _font_with(lost)):
            text.set_fontfamily(["DejaVu Sans", found])
        elif lost:
            _tell("".join(sorted(lost)))
            text.set_text(text.get_text() if keep else _boxed(text.get_text()))
    return figure


def quiet_glyphs() -> None:
    """Leave out matplotlib's own warning for each letter that is missing: `plain_texts` has told it once."""
    warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)


def _lost(text: str) -> frozenset[str]:
    """The letters that the usual font lacks."""
    return frozenset(letter for letter in text if not letter.isspace() and not _has(_usual(), letter))


def _boxed(text: str) -> str:
    """The text with a box for each letter that no font has."""
    lost = _lost(text)
    if not lost or _font_with(lost):
        return text
    _tell("".join(sorted(lost)))
    return "".join(BOX if letter in lost else letter for letter in text)


_told: set[str] = set()


def _tell(letters: str) -> None:
    if not _told:
        print(
            f"plots: no installed font has {letters[:12]}; they are boxes in pictures (fonts-noto-cjk has many scripts)"
        )
    _told.update(letters)


@functools.cache
def _usual() -> str:
    from matplotlib.font_manager import findfont

    return findfont("DejaVu Sans")


@functools.cache
def _has(file: str, letter: str) -> bool:
    from matplotlib.font_manager import get_font

    return bool(get_font(file).get_char_index(ord(letter)))


@functools.cache
def _font_with(letters: frozenset[str]) -> str:
    """The name of an installed font that has all these letters; empty where there is none."""
    from matplotlib.font_manager import fontManager

    for entry in sorted(fontManager.ttflist, key=lambda entry: ("CJK" not in entry.name, entry.name)):
        try:
            if all(_has(entry.fname, letter) for letter in letters):
                return str(entry.name)
        except (OSError, RuntimeError):
            continue
    return ""
