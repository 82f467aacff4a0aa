"""Pictures with captions made into dialogues: webdataset's tar archives, or a folder of pictures with .txt files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from vargpt_lightning.data.records import Record
from vargpt_lightning.data.sources.base import (
    ROWS_PER_PART,
    Part,
    Rejected,
    Row,
    RowError,
    check_text,
    need,
    read_all,
    row_id,
    with_pictures,
)
from vargpt_lightning.data.sources.phrases import drawn_caption, pick, seen_caption
from vargpt_lightning.data.sources.tars import members, read_member, safe_name, tar_parts
from vargpt_lightning.errors import UserError

NAME = "captions"
USES = ("drawn", "seen", "both")
PICTURES = ("jpg", "jpeg", "png", "webp", "gif")
TEXTS = ("txt", "caption", "text", "json")  # the first that is there counts
CAPTION_KEYS = ("caption", "text", "prompt", "title")
EXPECTED = "webdataset's tar archives (000.jpg beside 000.txt or 000.json), or a folder of such files"

_Sample = dict[str, bytes | RowError]


def parts(path: Path, *, pictures: Path | None = None, use: str = "drawn", seed: int = 0) -> list[Part]:
    """Return pieces of the archives, for `read_part`.

    Args:
        path: a tar archive, a folder of them, or a folder of pictures with captions in files of the same name.
        pictures: not used here, they lie beside their captions.
        use: "drawn" asks for the picture by its caption, "seen" asks what the picture shows, "both" does either.
        seed: of the wording, and of which is which with "both".

    Raises:
        UserError: `use` is something else, there are no such files, or an archive is broken.
    """
    if use not in USES:
        raise UserError(f"captions use: {use!r}; expected one of {', '.join(USES)}")
    path = need(Path(path), EXPECTED)
    options = {"use": use, "seed": seed}
    archives = [path] if path.is_file() else sorted(path.rglob("*.tar"))
    found = [part for file in archives for part in tar_parts(NAME, file, {**options, "name": _label(file, path)}, _key)]
    if not archives:
        count = len(_listing(path))
        for start in range(0, count, ROWS_PER_PART):
            stop = min(count, start + ROWS_PER_PART)
            found.append(Part(NAME, path, start, stop, start, {**options, "name": path.name}))
    if not found:
        raise UserError(f"{path}: no picture with a caption; expected {EXPECTED}")
    return found


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    samples = _from_folder(part) if part.path.is_dir() else _from_tar(part)
    for number, (key, sample) in enumerate(samples, part.first):
        name = row_id(key, f"{part.options['name']}-{number}")
        yield _row(part, name, key, sample)


def read(path: Path, *, pictures: Path | None = None, use: str = "drawn", seed: int = 0) -> Iterator[Row]:
    """Read all of them; see `parts`."""
    return read_all(parts(path, use=use, seed=seed), read_part)


def _label(file: Path, root: Path) -> str:
    return file.stem if file == root else file.relative_to(root).with_suffix("").as_posix()


def _split(name: str) -> tuple[str, str]:
    """A member's name as webdataset has it: the key up to the first dot of the file's name, and the ending."""
    path = PurePosixPath(name)
    key, _, ending = path.name.partition(".")
    return str(path.parent / key) if path.parent.name or path.is_absolute() else key, ending.lower()


def _key(name: str) -> str | None:
    key, _ = _split(name)
    return key or None


def _from_tar(part: Part) -> Iterator[tuple[str, _Sample]]:
    found = members(part.path, part.start, part.stop)
    named = (member for member in found if _key(member.name) is not None)
    for key, group in groupby(named, lambda member: _split(member.name)[0]):
        sample: _Sample = {}
        for member in group:
            ending = _split(member.name)[1]
            if ending in PICTURES + TEXTS:
                sample[ending] = read_member(part.path, member.offset, member.size)
        yield key, sample


def _listing(folder: Path) -> list[str]:
    """The stems of a folder's pictures, each once, in order."""
    files = (file for file in folder.rglob("*") if file.suffix.lower()[1:] in PICTURES)
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for file in files})


def _from_folder(part: Part) -> Iterator[tuple[str, _Sample]]:
    root = part.path.resolve()
    for key in _listing(part.path)[part.start : part.stop]:
        yield key, {ending: _inside(file, root) for ending, file in _files(part.path, key).items()}


def _files(folder: Path, key: str) -> dict[str, Path]:
    """The files of a stem by their endings, in the order in which they count."""
    found: dict[str, Path] = {}
    for ending in PICTURES + TEXTS:
        for written in (ending, ending.upper()):
            file = folder / f"{key}.{written}"
            if ending not in found and file.is_file():
                found[ending] = file
    return found


def folder_captions(folder: Path) -> Iterator[tuple[str, str, str | UserError]]:
    """Yield stem, picture's path in the folder, and caption of each picture in a folder, or what is wrong with it."""
    root = folder.resolve()
    for key in _listing(folder):
        files = _files(folder, key)
        picture = next(files[ending] for ending in PICTURES if ending in files).relative_to(folder).as_posix()
        try:
            texts: _Sample = {ending: _inside(file, root) for ending, file in files.items() if ending in TEXTS}
            yield key, picture, _caption(texts)
        except RowError as error:
            yield key, picture, error


def _inside(file: Path, root: Path) -> bytes | RowError:
    """The file's content; a link that leads out of the folder could show what was never meant to be data."""
    if not file.resolve().is_relative_to(root):
        return RowError(f"file {file.name!r}: refused: a link that leads out of {root}")
    try:
        return file.read_bytes()
    except OSError as error:
        return RowError(f"file {file.name!r}: cannot be read ({error.strerror or error})")


def _row(part: Part, name: str, key: str, sample: _Sample) -> Row:
    try:
        if not safe_name(key):
            raise RowError(f"member {key!r}: refused: the name leads out of the archive")
        data = next((_read(sample[ending]) for ending in PICTURES if ending in sample), None)
        if data is None:
            raise RowError(f"no picture; expected one of .{', .'.join(PICTURES)}")
        caption = _caption(sample)
        use, seed = part.options["use"], part.options["seed"]
        if use == "both":
            use = pick(("drawn", "seen"), seed, name, "use")
        make = drawn_caption if use == "drawn" else seen_caption
        turns = make(caption, f"{part.options['name']}/{key}", data, seed, name)
        kind = "generation" if use == "drawn" else "understanding"
        record = Record(name, NAME, turns, {"kind": kind, "caption": caption})
        return with_pictures(record, lambda _: data)
    except UserError as error:
        return Rejected(name, NAME, str(error))


def _read(content: bytes | RowError) -> bytes:
    if isinstance(content, RowError):
        raise content
    return content


def _caption(sample: _Sample) -> str:
    ending = next((ending for ending in TEXTS if ending in sample), None)
    if ending is None:
        raise RowError(f"no caption; expected one of .{', .'.join(TEXTS)}")
    text = _read(sample[ending]).decode("utf-8-sig", "surrogateescape")
    if ending == "json":
        text = _json_caption(text)
    text = check_text(text.strip(), "caption")
    if not text:
        raise RowError("the caption is empty")
    return text


def _json_caption(text: str) -> str:
    try:
        value: Any = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise RowError(f"the caption's JSON is broken ({error})") from error
    found = [value[key] for key in CAPTION_KEYS if isinstance(value.get(key), str)] if isinstance(value, dict) else []
    if isinstance(value, str):
        found = [value]
    if not found:
        raise RowError(f"no caption in the JSON; expected one of {', '.join(CAPTION_KEYS)}")
    return found[0]
