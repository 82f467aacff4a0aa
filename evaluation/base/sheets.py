"""Sheets of pictures with words under them, as one PNG: drawings, pictures scale by scale, originals with their copies.

Drawn with Pillow alone; the font is DejaVu Sans out of matplotlib's package, found without importing matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vargpt_lightning.evaluation.base.files import rgb

PAPER, INK, FAINT, LINE = "#fbfaf7", "#23211d", "#7b766c", "#e4e0d8"
RIGHT, WRONG = "#2f7d4f", "#b3482f"
MARGIN, GAP, TEXT = 28, 18, 15
PIXELATED_BELOW = 32
"""Pictures smaller than this are enlarged pixel by pixel: there the pixels are what one wants to see."""


@dataclass(frozen=True)
class Cell:
    """One picture with its words; `right` draws a small mark: True a tick, False a cross, None nothing."""

    picture: Image.Image
    caption: str = ""
    right: bool | None = None


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans at a size in pixels; Pillow's own font where matplotlib is missing."""
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def enlarge(picture: Image.Image, at_least: int = 128) -> Image.Image:
    """The picture enlarged by the smallest whole factor that brings its width to `at_least` pixels."""
    picture = rgb(picture)
    factor = max(1, -(-at_least // picture.width))
    way = Image.Resampling.NEAREST if picture.width < PIXELATED_BELOW else Image.Resampling.LANCZOS
    return picture if factor == 1 else picture.resize((picture.width * factor, picture.height * factor), way)


def wrap(text: str, width: float, size: int = TEXT, lines: int = 2) -> list[str]:
    """The text broken into lines of at most `width` pixels; what does not fit ends in an ellipsis."""
    face, found, line = font(size), [], ""
    words = text.split()
    for place, word in enumerate(words):
        longer = f"{line} {word}".strip()
        if line and face.getlength(longer) > width:
            found.append(line)
            line = word
            if len(found) == lines:
                return [*found[:-1], _cut(f"{found[-1]} {' '.join(words[place:])}", width, size)]
        else:
            line = longer
    return [_cut(part, width, size) for part in [*found, line] if part]


def _cut(text: str, width: float, size: int) -> str:
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def contact_sheet(
    cells: Sequence[Cell], *, columns: int = 8, title: str = "", note: str = "", cell: int = 128, lines: int = 2
) -> Image.Image:
    """A grid of pictures with their prompts under them.

    Args:
        cells: the pictures, row by row.
        columns: pictures in a row.
        title: a line above, in bold.
        note: a line below, such as the attribution of the pictures.
        cell: the least width of a picture on the sheet, in pixels.
        lines: of words under a picture, at most.
    """
    shown = [(enlarge(item.picture, cell), item) for item in cells]
    width = max([picture.width for picture, _ in shown], default=cell)
    height = max([picture.height for picture, _ in shown], default=cell)
    words = [wrap(item.caption, width, lines=lines) for _, item in shown]
    columns = max(1, min(columns, len(shown)))
    depths = [
        max((len(caption) for caption in words[i : i + columns]), default=0) for i in range(0, len(shown), columns)
    ]
    rows = [height + (8 + depth * (TEXT + 5) if depth else 0) for depth in depths]
    sheet, pen, top = _paper(columns * (width + GAP) - GAP, sum(rows) + GAP * max(0, len(rows) - 1), title, note)
    for number, ((picture, item), caption) in enumerate(zip(shown, words, strict=True)):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * (width + GAP), top + sum(rows[:row]) + GAP * row
        _place(sheet, pen, picture, left, upper)
        if item.right is not None:
            _mark(pen, left + picture.width - 12, upper + 12, item.right)
        for line_number, line in enumerate(caption):
            pen.text((left, upper + height + 8 + line_number * (TEXT + 5)), line, INK, font(TEXT))
    return sheet


def rows_sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    *,
    heads: Sequence[str] = (),
    title: str = "",
    note: str = "",
    cell: int = 96,
) -> Image.Image:
    """One row of pictures for each caption: a drawing after each scale, or an original beside its copy.

    Args:
        rows: captions with their pictures.
        heads: words above the columns, such as the scales "1×1", "2×2".
        title, note: a line above and a line below.
        cell: the least width of a picture, in pixels.
    """
    shown = [(caption, [enlarge(picture, cell) for picture in pictures]) for caption, pictures in rows]
    width = max([picture.width for _, pictures in shown for picture in pictures], default=cell)
    height = max([picture.height for _, pictures in shown for picture in pictures], default=cell)
    columns = max([len(pictures) for _, pictures in shown], default=1)
    aside = 190 if any(caption for caption, _ in shown) else 0
    above = TEXT + 12 if heads else 0
    inner = above + len(shown) * (height + 10) - 10
    sheet, pen, top = _paper(aside + columns * (width + 8) - 8, inner, title, note)
    for column, head in enumerate(heads[:columns]):
        pen.text((MARGIN + aside + column * (width + 8), top), _cut(head, width, TEXT - 2), FAINT, font(TEXT - 2))
    for row, (caption, pictures) in enumerate(shown):
        upper = top + above + row * (height + 10)
        lines = wrap(caption, aside - 16, lines=3)
        start = upper + (height - len(lines) * (TEXT + 5)) // 2
        for number, line in enumerate(lines):
            pen.text((MARGIN, start + number * (TEXT + 5)), line, INK, font(TEXT))
        for column, picture in enumerate(pictures):
            _place(sheet, pen, picture, MARGIN + aside + column * (width + 8), upper)
    return sheet


def pairs_sheet(
    pairs: Sequence[tuple[Image.Image, Image.Image]], *, columns: int = 6, title: str = "", note: str = ""
) -> Image.Image:
    """Originals with the image tokenizer's reconstruction to their right."""
    cells = [Cell(picture, caption) for pair in pairs for picture, caption in zip(pair, ("real", "copy"), strict=True)]
    return contact_sheet(cells, columns=2 * columns, title=title, note=note)


def _paper(width: int, height: int, title: str, note: str) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """An empty sheet with title and note, its pen, and where the content starts."""
    top = MARGIN + (TEXT + 22 if title else 0)
    bottom = MARGIN + (TEXT + 12 if note else 0)
    sheet = Image.new("RGB", (width + 2 * MARGIN, top + height + bottom), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN - 4), _cut(title, width, TEXT + 5), INK, font(TEXT + 5, bold=True))
    if note:
        pen.text((MARGIN, sheet.height - MARGIN - 6), _cut(note, width, TEXT - 3), FAINT, font(TEXT - 3))
    return sheet, pen, top


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: Image.Image, left: int, upper: int) -> None:
    sheet.paste(picture, (left, upper))
    pen.rectangle((left - 1, upper - 1, left + picture.width, upper + picture.height), outline=LINE)


def _mark(pen: ImageDraw.ImageDraw, x: int, y: int, right: bool) -> None:
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=RIGHT if right else WRONG)
    if right:
        pen.line([(x - 4, y), (x - 1, y + 3), (x + 4, y - 3)], fill="white", width=2)
    else:
        pen.line([(x - 3, y - 3), (x + 3, y + 3)], fill="white", width=2)
        pen.line([(x - 3, y + 3), (x + 3, y - 3)], fill="white", width=2)
