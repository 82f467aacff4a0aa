"""Pictures and the files of their captions beside them: members of webdataset's archives, or files of a folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vargpt_lightning.data.sources.base import Part, RowError, check_text
from vargpt_lightning.data.sources.corpus_folders import TEXTS, Layout, find_layout, walk
from vargpt_lightning.data.sources.endings import endings_text, is_picture, picture_endings, split_ending, unread_reason
from vargpt_lightning.data.sources.picture_store import within
from vargpt_lightning.data.sources.tars import members, read_member, safe_name
from vargpt_lightning.utils.errors import UserError

CAPTION_KEYS = (
    *("caption", "captions", "text", "texts", "prompt", "prompts", "description", "descriptions"),
    *("sentence", "sentences", "title", "alt_text", "alt", "raw"),
)


class Sample(NamedTuple):
    """A picture with its captions, or what is wrong with either; `key` names it within its corpus."""

    key: str
    picture: bytes | RowError
    captions: list[str] | RowError
    id: Any = None


def caption_texts(value: Any, keys: Sequence[str] = CAPTION_KEYS) -> list[str]:
    """Return the texts in a value: itself, those of a list, or what stands under the first of the keys that has any."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        lower = {str(key).lower(): each for key, each in reversed(list(value.items()))}
        found = (caption_texts(lower.get(key), keys) for key in keys)
        return next(filter(None, found), [])
    return [text for each in value for text in caption_texts(each, keys)] if isinstance(value, (list, tuple)) else []


def checked_captions(texts: Iterable[str]) -> list[str]:
    """Return captions without white space around them; raises RowError when none is left, or one is no Unicode."""
    kept = [check_text(text.strip(), "caption") for text in texts]
    if not any(kept):
        raise RowError("the caption is empty")
    return list(dict.fromkeys(filter(None, kept)))


def tar_samples(part: Part) -> Iterator[Sample]:
    """Yield the samples of a piece of an archive, as webdataset groups its members."""
    found = members(part.path, part.start, part.stop)
    named = (member for member in found if tar_key(member.name) is not None)
    wanted = {*picture_endings(), *TEXTS}
    for key, group in groupby(named, lambda member: _split(member.name)[0]):
        endings = {_split(member.name)[1]: member for member in group}
        for name, own in _by_last_dot(key, endings).items():
            read = {each: read_member(part.path, at.offset, at.size) for each, at in own.items() if each in wanted}
            if safe_name(name):
                yield Sample(name, _tried(_picture, read, own), _tried(_captions, read))
            else:
                error = RowError(f"member {name!r}: refused: the name leads out of the archive")
                yield Sample(name, error, error)


def _by_last_dot(key: str, endings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A sample's members, or several samples' where names hold dots and each picture has a text of its whole name."""
    groups: dict[str, dict[str, Any]] = {}
    for ending, member in endings.items():
        stem, _, last = ending.rpartition(".")
        groups.setdefault(f"{key}.{stem}" if stem else key, {})[last] = member
    pictures = [group for group in groups.values() if any(is_picture(f"x.{ending}") for ending in group)]
    if groups.keys() == {key} or any(not {*group} & {*TEXTS} for group in pictures):
        return {key: endings}
    return {name: group for name, group in groups.items() if group in pictures} or {key: endings}


def tar_key(name: str) -> str | None:
    """Return which sample a member belongs to: webdataset's key ends at the first dot of the file's name."""
    return _split(name)[0] or None


def folder_samples(part: Part) -> Iterator[Sample]:
    """Yield the pictures of a piece of a folder with the captions beside them, or with their folder's name as one."""
    layout = _layout(part.path, part.options.get("split"))
    root, texts = part.path, _texts_beside(part.path)
    for stem, names in pictures_by_stem(layout.names)[part.start : part.stop]:
        if layout.kind == "classes":
            captions: list[str] | RowError = [class_caption(Path(names[0]).parent.name)]
        else:
            beside = {ending: root / name for ending, name in texts.get(stem, {}).items()}
            captions = _tried(lambda files: _captions(_opened(files, root)), beside)
        reason = unread_reason(names[0])
        picture = RowError(f"picture {names[0]!r}: {reason}") if reason else _tried(inside, root / names[0], root)
        yield Sample(stem, picture, captions)


def pictures_by_stem(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the paths without endings, in order, each with its pictures, the preferred one first."""
    order = {ending: place for place, ending in enumerate(picture_endings())}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(split_ending(name)[0], []).append(name)
    for each in found.values():
        each.sort(key=lambda name: (order.get(split_ending(name)[1], len(order)), name.swapcase()))
    return sorted(found.items())


def forget_folders() -> None:
    """Forget which files folders had: they may have changed since they were last looked at."""
    _layout.cache_clear()
    _texts_beside.cache_clear()


# a folder is walked once for all of its pieces
@lru_cache(maxsize=1)
def _layout(folder: Path, split: str | None) -> Layout:
    return find_layout(folder, split)


@lru_cache(maxsize=1)
def _texts_beside(folder: Path) -> dict[str, dict[str, str]]:
    """The files with captions by the paths that they share with pictures, and by their endings in lower case."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(walk(folder), key=str.swapcase):
        stem, ending = split_ending(name)
        if ending in TEXTS:
            found.setdefault(stem, {}).setdefault(ending, name)
    return found


def folder_captions(folder: Path) -> Iterator[tuple[str, str, str | UserError]]:
    """Yield stem, picture's path in the folder, and caption of each picture in a folder, or what is wrong with it."""
    forget_folders()
    layout, texts = _layout(folder, None), _texts_beside(folder)
    for stem, names in pictures_by_stem(layout.names):
        if layout.kind == "classes":
            yield stem, names[0], class_caption(Path(names[0]).parent.name)
            continue
        beside = {ending: folder / name for ending, name in texts.get(stem, {}).items()}
        found = _tried(lambda files: _captions(_opened(files, folder)), beside)
        yield stem, names[0], found if isinstance(found, RowError) else found[0]


def used_files(folder: Path, split: str | None = None) -> set[str]:
    """Return the files of a folder that pictures and their captions are read from, as paths below it."""
    layout, texts = _layout(folder, split), _texts_beside(folder)
    used: set[str] = set()
    for stem, names in pictures_by_stem(layout.names):
        used.add(names[0])
        if layout.kind == "pairs":
            used.update(filter(None, [_first(texts.get(stem, {}))]))
    return used


def ending_counts(names: Iterable[str]) -> Counter[str]:
    """Return how often each ending is there, for messages: ".txt", or "no ending"."""
    return Counter(f".{ending}" if (ending := split_ending(name)[1]) else "no ending" for name in names)


def class_caption(name: str) -> str:
    """Return a folder's or a class's name as a caption: "large_red_disc" is "large red disc"."""
    return " ".join(name.replace("_", " ").split())


def inside(file: Path, root: Path) -> bytes:
    """Return a file's content; a link that leads out of the folder could show what was never meant to be data."""
    try:
        if not within(file, root):
            raise RowError(f"file {file.name!r}: refused: a link that leads out of {root}")
        return file.read_bytes()
    except OSError as error:
        raise RowError(f"file {file.name!r}: cannot be read ({error.strerror or error})") from error


def _tried(make: Any, *values: Any) -> Any:
    """What the function returns, or the RowError that it raises."""
    try:
        return make(*values)
    except RowError as error:
        return error


def _split(name: str) -> tuple[str, str]:
    """A member's name as webdataset has it: the key up to the first dot of the file's name, and the ending."""
    path = PurePosixPath(name)
    key, _, ending = path.name.partition(".")
    return str(path.parent / key) if path.parent.name or path.is_absolute() else key, ending.lower()


def _picture(read: Mapping[str, bytes], endings: Iterable[str]) -> bytes:
    if (found := next((read[ending] for ending in picture_endings() if ending in read), None)) is not None:
        return found
    for ending in endings:
        if reason := unread_reason(f"x.{ending}"):
            raise RowError(f"picture: {reason}")
    there = f"; there is .{', .'.join(endings)}: a name ends at its first dot" if any("." in e for e in endings) else ""
    raise RowError(f"no picture; expected one of {endings_text()}{there}")


def _opened(files: Mapping[str, Path], root: Path) -> dict[str, bytes]:
    first = _first(files)
    return {} if first is None else {next(each for each in TEXTS if each in files): inside(first, root)}


def _first(files: Mapping[str, Any]) -> Any:
    return next((files[ending] for ending in TEXTS if ending in files), None)


def _captions(read: Mapping[str, bytes]) -> list[str]:
    ending = next((ending for ending in TEXTS if ending in read), None)
    if ending is None:
        raise RowError(f"no caption; expected one of .{', .'.join(TEXTS)}")
    text = read[ending].decode("utf-8-sig", "surrogateescape")
    return checked_captions(_json_captions(text) if ending == "json" else [text])


def _json_captions(text: str) -> list[str]:
    try:
        value: Any = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise RowError(f"the caption's JSON is broken ({error})") from error
    if not (found := caption_texts(value)):
        raise RowError(f"no caption in the JSON; expected one of {', '.join(CAPTION_KEYS)}")
    return found
