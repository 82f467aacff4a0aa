"""Lists of picture files with ids, paired with prompts by id and never by sorted names. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vargpt_lightning.data.sources.endings import endings_text, is_picture
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_runs import ROWS, drawn_rows
from vargpt_lightning.utils.errors import UserError

LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")
ALLOWED = {
    "few_samples": "fewer pictures than features",
    "missing": "prompts without a drawing",
    "unknown": "drawings that belong to no prompt",
    "broken": "pictures that do not decode",
}
"""What may be allowed by name; each is refused otherwise, and marked in the result when allowed."""


@dataclass(frozen=True)
class PictureFile:
    """One picture of a set; `id` ties it to its prompt."""

    id: str
    path: Path


def list_pictures(folder: Path) -> list[PictureFile]:
    """The pictures of a folder and of those below it, by path; a sampling folder gives its prompts' ids.

    The id is the path below the folder without its ending. Raises UserError when there is no folder or no picture, and
    when two files have one id (1.png and 1.jpg).
    """
    if (folder / ROWS).is_dir():
        rows = sorted(drawn_rows(folder).items())
        return [PictureFile(id_, folder / row["file"]) for id_, row in rows if row["file"] is not None]
    if not folder.is_dir():
        raise UserError(f"{folder}: not found; expected a folder of pictures")
    found: dict[str, Path] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if is_picture(name) and not name.startswith("."):
                id_ = path.relative_to(folder).with_suffix("").as_posix()
                if id_ in found:
                    raise UserError(f"{path} and {found[id_].name} have one id, {id_!r}; expected one picture an id")
                found[id_] = path
    if not found:
        raise UserError(f"{folder}: no pictures; expected files such as {endings_text()}")
    return sorted((PictureFile(id_, path) for id_, path in found.items()), key=lambda file: str(file.path))


@dataclass(frozen=True)
class Pairs:
    """Prompts with their drawings, in the prompts' order, and the ids on one side alone."""

    prompts: list[Prompt]
    drawings: list[PictureFile]
    missing: list[str]
    unknown: list[str]


def pair(prompts: Sequence[Prompt], drawings: Iterable[PictureFile], allow: Collection[str] = ()) -> Pairs:
    """Prompts and drawings of one id, or of the id's file name, side by side.

    Raises UserError for prompts without a drawing and drawings without a prompt unless "missing" or "unknown" is
    allowed.
    """
    by_id = {file.id: file for file in drawings}
    kept: list[Prompt] = []
    files: list[PictureFile] = []
    missing: list[str] = []
    for prompt in prompts:
        file = by_id.pop(prompt.id, None) or by_id.pop(file_stem(prompt.id), None)
        if file is None:
            missing.append(prompt.id)
        else:
            kept.append(prompt)
            files.append(PictureFile(prompt.id, file.path))
    for name, ids, what in (
        ("missing", missing, "prompts have no drawing"),
        ("unknown", list(by_id), "drawings belong to no prompt"),
    ):
        if ids and name not in allow:
            raise UserError(f"{len(ids)} {what}, such as {ids[0]!r}; pairs go by id, or add --allow {name}")
    if not kept:
        raise UserError("no drawing has the id of a prompt; pairs go by id, the file's name without its ending")
    return Pairs(kept, files, missing, list(by_id))


def references(prompts: Sequence[Prompt]) -> list[PictureFile]:
    """The prompts' real pictures, one a prompt; raises UserError when one has none, or its file is missing."""
    files = []
    for prompt in prompts:
        if prompt.reference is None:
            raise UserError(f"prompt {prompt.id!r} has no reference picture; name a folder or statistics instead")
        if not prompt.reference.is_file():
            raise UserError(f"prompt {prompt.id!r}: the reference {prompt.reference} is not there")
        files.append(PictureFile(prompt.id, prompt.reference))
    return files


def check_sizes(files: Sequence[PictureFile], allow: Collection[str] = ()) -> None:
    """Refuses a set of mixed sizes, naming two; only the files' heads are read. Raises UserError."""
    first: tuple[PictureFile, tuple[int, int]] | None = None
    for file in files:
        try:
            with Image.open(file.path) as picture:
                size = picture.size
        except (OSError, ValueError, SyntaxError) as error:
            if "broken" in allow:
                continue
            raise UserError(f"{file.path}: no picture ({error}); mend it, or add --allow broken") from error
        if first is None:
            first = file, size
        elif size != first[1]:
            one, two = "x".join(map(str, first[1])), "x".join(map(str, size))
            raise UserError(
                f"pictures of several sizes: {first[0].path} is {one}, {file.path} is {two}; "
                "expected one size, or --resize-and-crop PIXELS"
            )
