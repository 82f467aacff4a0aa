"""Members of tar archives, with their places, in flat memory; archives inside an archive are walked too.

Nothing is ever unpacked to the disk; still, members whose names would leave a folder are marked and never used.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vargpt_lightning.data.sources.base import ROWS_PER_PART, Part
from vargpt_lightning.utils.errors import UserError

EXPECTED = "an uncompressed tar archive"
_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}


class Member(NamedTuple):
    """A file in an archive: its name, where its header begins, where its content begins and how long that is.

    `end` is where the archive that it lies in ends, if that is itself a member of another; None otherwise. `inside` is
    that member's path without its ending.
    """

    name: str
    header: int
    offset: int
    size: int
    end: int | None = None
    inside: str = ""


def safe_name(name: str) -> bool:
    """Whether a path is relative, without `..` and NUL."""
    return (
        bool(name) and "\0" not in name and not name.startswith(("/", "\\")) and ".." not in PurePosixPath(name).parts
    )


def plain_name(name: str) -> str:
    """Return a path as archives and lists agree on it: without `./`, doubled slashes and the like."""
    return PurePosixPath(name).as_posix()


def members(
    path: Path, start: int = 0, stop: int | None = None, end: int | None = None, inside: str = ""
) -> Iterator[Member]:
    """Yield the files of an archive whose headers lie from byte `start` to before `stop`, in order.

    Members that end in .tar are walked in their place. Raises UserError when the archive is none or is cut off.
    """
    try:
        with open(path, "rb") as file:
            if not start:
                _refuse_compressed(path, file.read(6))
            file.seek(start)
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with its file
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every member there was
                if stop is not None and info.offset >= stop:
                    return
                if info.isreg() and info.name.lower().endswith(".tar"):
                    inner = info.offset_data + info.size
                    yield from members(path, info.offset_data, inner, inner, _below(inside, info.name))
                elif info.isreg():
                    yield Member(info.name, info.offset, info.offset_data, info.size, end, inside)
            file.seek(archive.offset)
            if file.read(_BLOCK) != bytes(_BLOCK):
                raise UserError(
                    f"{path}: cut off or damaged at byte {archive.offset}; expected {EXPECTED} with its end"
                )
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: {error}; expected {EXPECTED}, whole") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected {EXPECTED}") from error


def read_member(path: Path, offset: int, size: int) -> bytes:
    """Return a member's content; raises UserError when the archive ends before it does."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected {EXPECTED}") from error
    if len(data) != size:
        raise UserError(f"{path}: {len(data)} of {size} bytes at {offset}: cut off; expected {EXPECTED}, whole")
    return data


def tar_parts(
    source: str,
    path: Path,
    options: Mapping[str, Any],
    key: Callable[[str], str | None],
    rows: int = ROWS_PER_PART,
) -> list[Part]:
    """Return pieces of about `rows` samples; members of one `key` (None: no sample's) stay in one piece.

    The headers of the whole archive are walked, so that one that is cut off is known before the work begins.
    """
    found: list[Part] = []
    start: int | None = None
    end: int | None = None
    first, count, last = 0, 0, None

    def close(stop: int | None) -> None:
        assert start is not None
        found.append(Part(source, path, start, stop, first, options))

    for member in members(path):
        name = key(member.name)
        if start is not None and (member.end != end or (count >= rows and name is not None and name != last)):
            close(end if member.end != end else member.header)
            first, count, start, last = first + count, 0, None, None
        if start is None:
            start, end = member.header, member.end
        if name is not None and name != last:
            last, count = name, count + 1
    if start is not None:
        close(end)
    return found


def _below(inside: str, name: str) -> str:
    own = PurePosixPath(plain_name(name)).with_suffix("").as_posix()
    return f"{inside}/{own}" if inside else own


def _refuse_compressed(path: Path, opening: bytes) -> None:
    for signature, name in _COMPRESSED.items():
        if opening.startswith(signature):
            raise UserError(f"{path}: compressed with {name}; expected {EXPECTED}: uncompress it first")
