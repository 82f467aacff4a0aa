"""Pictures between files and a conversation: read to be shown, drawn ones saved. No torch until one is decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError, near_path

if TYPE_CHECKING:  # a command's refusals must not wait for torch
    from vargpt_lightning.models.generation.answers import Answer


def picture_file(path: Path) -> Any:
    """Read a picture.

    Raises:
        UserError: the file is missing, may not be read, or is no picture.
    """
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a picture file{near_path(path)}"
        ) from error
    from vargpt_lightning.data.images.pictures import PictureError, decode_picture

    try:
        return decode_picture(data, str(path))
    except PictureError as error:
        raise UserError(f"{path}: {len(data)} bytes that are no picture; expected PNG, JPEG, WebP or GIF") from error


def saved_answer(answer: Answer, out: Path, stem: str) -> Iterator[str]:
    """Save an answer's pictures as OUT/STEM.png, OUT/STEM-1.png, ...; yields its texts and their paths, in order."""
    drawn = 0
    for part in answer.parts:
        if hasattr(part, "image"):
            path = out / f"{stem}{f'-{drawn}' if drawn else ''}.png"
            save_png(path, part.image)
            yield str(path)
            drawn += 1
        else:
            yield part.text
    if not answer.parts:
        yield "(an empty answer)"


def save_png(path: Path, image: Any) -> None:
    """Write a PNG in one step."""
    from vargpt_lightning.utils.files import write_bytes

    content = io.BytesIO()
    image.save(content, "PNG")
    try:
        write_bytes(path, content.getvalue())
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path.parent}: is not a folder; expected one to save pictures in") from error


def slug(text: str) -> str:
    """Return a prompt as the start of a file's name: lower-case words joined by hyphens, 40 characters at most."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "-".join(words)[:40].strip("-") or "answer"
