"""Sheets show every picture, enlarged by whole factors, with its words."""

from __future__ import annotations

import pytest
from PIL import Image, ImageFont

from vargpt_lightning.evaluation.base.sheets import (
    GAP,
    MARGIN,
    PAPER,
    Cell,
    contact_sheet,
    enlarge,
    font,
    pairs_sheet,
    rows_sheet,
    wrap,
)


def colours_of(sheet: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in sheet.getcolors(maxcolors=10**6)}


@pytest.mark.parametrize(("size", "wide"), [(8, 128), (64, 128), (100, 200), (128, 128), (256, 256)])
def test_pictures_are_enlarged_by_whole_factors(size, wide):
    picture = enlarge(Image.new("RGB", (size, size // 2), "red"), 128)
    assert picture.size == (wide, wide // 2)


def test_tiny_pictures_keep_their_pixels():
    picture = Image.new("RGB", (2, 2), "red")
    picture.putpixel((1, 1), (0, 0, 255))
    large = enlarge(picture, 100)
    assert large.getpixel((49, 49)) == (255, 0, 0) and large.getpixel((50, 50)) == (0, 0, 255)
    assert colours_of(large) == {(255, 0, 0), (0, 0, 255)}


def test_text_is_wrapped_to_the_width_and_cut_with_an_ellipsis():
    face = font(15)
    assert isinstance(face, ImageFont.FreeTypeFont) and "DejaVu" in face.getname()[0]
    lines = wrap("Please draw a very small hippopotamus standing on a drum", 120)
    assert len(lines) == 2 and lines[1].endswith("…") and all(face.getlength(line) <= 120 for line in lines)
    assert wrap("short", 120) == ["short"] and wrap("", 120) == []
    assert wrap("W" * 60, 100)[0].endswith("…")


def test_a_sheet_has_a_place_for_every_picture():
    cells = [Cell(Image.new("RGB", (64, 64), (40 * n, 0, 255)), f"number {n}") for n in range(5)]
    sheet = contact_sheet(cells, columns=3)
    assert sheet.width == 2 * MARGIN + 3 * 128 + 2 * GAP
    for n in range(3):
        assert sheet.getpixel((MARGIN + n * (128 + GAP) + 64, MARGIN + 64)) == (40 * n, 0, 255)
    assert {(160, 0, 255), (120, 0, 255)} <= colours_of(sheet)


def test_words_title_note_and_marks_are_drawn():
    plain = contact_sheet([Cell(Image.new("RGB", (64, 64), "white"))])
    for sheet in (
        contact_sheet([Cell(Image.new("RGB", (64, 64), "white"), "words")]),
        contact_sheet([Cell(Image.new("RGB", (64, 64), "white"))], title="Title"),
        contact_sheet([Cell(Image.new("RGB", (64, 64), "white"))], note="OpenMoji, CC BY-SA 4.0"),
    ):
        assert sheet.height > plain.height and len(colours_of(sheet)) > len(colours_of(plain))
    right = contact_sheet([Cell(Image.new("RGB", (64, 64), "white"), right=True)])
    wrong = contact_sheet([Cell(Image.new("RGB", (64, 64), "white"), right=False)])
    assert (47, 125, 79) in colours_of(right) and (179, 72, 47) in colours_of(wrong)


def test_rows_and_pairs_stand_side_by_side():
    steps = [Image.new("RGB", (32, 32), (0, 60 * n, 0)) for n in range(4)]
    sheet = rows_sheet([("a prompt", steps), ("another", steps[:2])], heads=["1×1", "2×2"], title="Scale by scale")
    assert {(0, 60 * n, 0) for n in range(4)} <= colours_of(sheet)
    pairs = pairs_sheet([(steps[1], steps[2])] * 2, columns=2)
    assert pairs.width == 2 * MARGIN + 4 * 128 + 3 * GAP


def test_an_empty_sheet_is_paper():
    assert (
        contact_sheet([]).getpixel((5, 5))
        == rows_sheet([]).getpixel((5, 5))
        == Image.new("RGB", (1, 1), PAPER).getpixel((0, 0))
    )
