"""Sentences that make dialogues of pictures with a name or a caption; which one follows from an id and a seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, TextPart, Turn

ASK_FOR_THING = (
    "Please draw {thing}.",
    "Draw {thing}.",
    "Can you draw {thing}?",
    "Could you make a picture of {thing}?",
    "Generate an image of {thing}.",
    "Please generate a picture of {thing} for me.",
    "I would like to see {thing}.",
    "Show me {thing}.",
    "Create a photo of {thing}.",
    "I need a picture that shows {thing}.",
    "What does {thing} look like? Draw one.",
    "Would you paint {thing} for me?",
)
GIVE_THING = (
    "Here is {thing}.",
    "Of course. This is {thing}:",
    "Sure, here is a picture of {thing}.",
    "This picture shows {thing}.",
    "Here you are, {thing}:",
    "I have drawn {thing} for you.",
)
ASK_FOR_CAPTION = (
    "Please draw this: {caption}",
    "Generate an image of the following scene. {caption}",
    "Can you make a picture that fits this description? {caption}",
    "Create an image: {caption}",
    "I would like a picture of this. {caption}",
    "Draw a picture for the caption: {caption}",
)
GIVE_CAPTION = (
    "Here is the picture.",
    "Of course, this is the picture you asked for:",
    "Sure. Here it is:",
    "This is how I would draw it.",
    "Here is an image of that.",
)
ASK_ABOUT = (
    "What does this picture show?",
    "Please describe this picture.",
    "What can be seen here?",
    "Give a caption for this image.",
    "Describe the image in a sentence.",
)
GIVE_EDIT = (
    "Here is the changed picture.",
    "Of course, this is the picture with your change:",
    "Sure. Here it is:",
    "I have changed it for you.",
    "The output image is:",
)
ASK_FOR_STYLE = (
    "Transform this image to match the style of {style}.",
    "Turn this picture into {style}.",
    "Let this image be in the style of {style}.",
    "Redraw this picture in the style of {style}.",
)
_HARD_A = re.compile(r"(?:uni[cfv]|one-|eu|ukul)", re.IGNORECASE)
_SILENT_H = re.compile(r"(?:hour|honest|heir)", re.IGNORECASE)
_SINGULAR_S = re.compile(r"(?:ss|us|is|ops|lens|mantis|bus)$", re.IGNORECASE)


def pick(choices: Sequence[str], seed: int, name: str, use: str = "") -> str:
    """Return one of the choices, the same whenever seed, name and use are."""
    digest = hashlib.sha256(f"{seed}:{use}:{name}".encode("utf-8", "replace")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def with_article(name: str) -> str:
    """Return an English noun with "a" or "an", plurals without."""
    last = re.sub(r"\s*\(.*\)$", "", name)
    if last.endswith("s") and not _SINGULAR_S.search(last):
        return name
    vowel = (name[:1].lower() in "aeiou" and not _HARD_A.match(name)) or _SILENT_H.match(name)
    return f"{'an' if vowel else 'a'} {name}"


def drawn_thing(name: str, picture_key: str, data: bytes | None, seed: int, row: str) -> tuple[Turn, Turn]:
    """Return a request for a thing by its name, and the answer that draws it."""
    thing = with_article(name)
    ask = pick(ASK_FOR_THING, seed, row, "ask").format(thing=thing)
    give = pick(GIVE_THING, seed, row, "give").format(thing=thing)
    return _drawn(ask, give, picture_key, data)


def drawn_caption(caption: str, picture_key: str, data: bytes | None, seed: int, row: str) -> tuple[Turn, Turn]:
    """Return a request for a picture by its caption, and the answer that draws it."""
    ask = pick(ASK_FOR_CAPTION, seed, row, "ask").replace("{caption}", caption)
    return _drawn(ask, pick(GIVE_CAPTION, seed, row, "give"), picture_key, data)


def edited(
    instruction: str, before: tuple[str, bytes | None], after: tuple[str, bytes | None], seed: int, row: str
) -> tuple[Turn, Turn]:
    """Return a picture with an instruction, and the answer that draws it changed; pictures are keys and files."""
    answer = (TextPart(pick(GIVE_EDIT, seed, row, "give")), PicturePart(DRAWN, *after))
    return Turn("user", (PicturePart(SEEN, *before), TextPart(instruction))), Turn("assistant", answer)


def seen_caption(caption: str, picture_key: str, data: bytes | None, seed: int, row: str) -> tuple[Turn, Turn]:
    """Return a question about a picture, and its caption as the answer."""
    question = TextPart(pick(ASK_ABOUT, seed, row, "about"))
    return Turn("user", (PicturePart(SEEN, picture_key, data), question)), Turn("assistant", (TextPart(caption),))


def _drawn(ask: str, give: str, picture_key: str, data: bytes | None) -> tuple[Turn, Turn]:
    answer = (TextPart(give), PicturePart(DRAWN, picture_key, data))
    return Turn("user", (TextPart(ask),)), Turn("assistant", answer)
