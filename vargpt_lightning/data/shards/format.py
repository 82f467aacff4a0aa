"""Records packed into webdataset shards, with an index that lets any sample be read by itself.

A folder holds one source of one split: `shard-000000.tar`, ... with `{id}.json` and `{id}.0.png`, ... per sample, and
`index.json`: counts, bytes, hashes of the shards, and for each sample the offset and length of its members.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.utils.errors import UserError

INDEX_NAME, OFFSETS_NAME, REJECTED_NAME = "index.json", "offsets.json", "rejected.jsonl"
FORMAT_VERSION = 1
SHARD_BYTES = 32 * 2**20
_LEFT_OVER_SECONDS = 3600
_BLOCK = 512  # bytes of a tar header, and what contents are padded to
_SIGNATURES = (
    (rb"\x89PNG", "png"),
    (rb"\xff\xd8\xff", "jpg"),
    (rb"RIFF....WEBP", "webp"),
    (rb"GIF8", "gif"),
    (rb"BM", "bmp"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "tif"),
    (rb"....ftypavi[fs]", "avif"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "jp2"),
    (rb"P[1-7Ff][\s#]", "ppm"),
)


def cache_root(root: str | Path | None = None) -> Path:
    """Return where prepared data are kept: the argument, else $VARGPT_CACHE, else ~/.cache/vargpt-lightning."""
    named = root or os.environ.get("VARGPT_CACHE") or Path.home() / ".cache" / "vargpt-lightning"
    # whole, so that it stays the same folder wherever the process or its children go
    return Path(named).expanduser().absolute()


def write_source(
    records: Iterable[Record], folder: Path, *, split: str, name: str = "", shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write records into shards below `folder` (created) and return the index that was written beside them.

    A shard is closed when it reaches `shard_bytes`. Raises UserError when a picture has no bytes.
    """
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    kinds: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    shards: list[dict[str, Any]] = []
    members: list[list[Any]] = []
    writer, path, count = None, folder, 0
    for record in records:
        if writer is None:
            path = folder / f"shard-{len(shards):06d}.tar"
            writer, count = webdataset.TarWriter(str(path), mtime=0, user="", group=""), 0
        writer.write({"__key__": member_key(record.id), **sample_members(record)})
        pictures.update(part.use for part in record.pictures())
        kinds[record.kind] += 1
        count += 1
        if writer.tarstream.offset >= shard_bytes:
            _close(writer, path, count, shards, members)
            writer = None
    if writer is not None:
        _close(writer, path, count, shards, members)
    index = {
        "format": FORMAT_VERSION,
        "name": name or folder.name,
        "split": split,
        "count": sum(kinds.values()),
        "bytes": sum(shard["bytes"] for shard in shards),
        "kinds": dict(sorted(kinds.items())),
        "pictures": {use: pictures[use] for use in (SEEN, DRAWN)},
        "shards": shards,
    }
    (folder / OFFSETS_NAME).write_text(json.dumps(members, separators=(",", ":")), encoding="utf-8")
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def sample_members(record: Record) -> dict[str, bytes]:
    """Return the files that a record is stored as, by the ends of their names: `json`, `0.png`, `1.jpg`, ...

    Raises UserError when a picture has no bytes, UnicodeError for text that UTF-8 cannot hold.
    """
    members = {"json": json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":")).encode()}
    for number, part in enumerate(record.pictures()):
        if part.data is None:
            raise UserError(f"record {record.id!r}: picture {part.name!r} has no bytes to pack")
        members[f"{number}.{_extension(part.data)}"] = part.data
    return members


def member_key(name: str) -> str:
    """Return a record's id as a member's name: webdataset cuts names at the first dot and groups by folder."""
    return re.sub(r"[^\w-]", "_", name)


def _extension(data: bytes) -> str:
    """The ending that a picture's content asks for, whatever the file was called."""
    found = (ending for start, ending in _SIGNATURES if re.match(start, data[:16], re.DOTALL))
    return next(found, "bin")


def _close(writer: Any, path: Path, count: int, shards: list[dict[str, Any]], members: list[list[Any]]) -> None:
    writer.close()
    data = path.read_bytes()
    shards.append({"file": path.name, "count": count, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    found = scan_shard(data, len(shards) - 1)
    if len(found) != count:
        raise UserError(f"{path}: {count} records gave {len(found)} samples; expected ids that differ")
    members.extend(found)


def scan_shard(data: bytes, number: int) -> list[list[Any]]:
    """Return a shard's samples as `[number, [json offset, length], [picture offset, length], ...]`, in order."""
    samples: dict[str, dict[str, list[int]]] = {}
    for name, offset, size in _members(data):
        key, _, ending = name.partition(".")
        samples.setdefault(key, {})[ending.split(".")[0]] = [offset, size]
    result = []
    for parts in samples.values():
        pictures = sorted((key for key in parts if key.isdigit()), key=int)
        result.append([number, parts["json"], *(parts[key] for key in pictures)])
    return result


def _members(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each file of a tar archive; tarfile itself, five times slower, only if need be."""
    found, at = [], 0
    while at + _BLOCK <= len(data) and data[at]:
        kind, size = data[at + 156 : at + 157], data[at + 124 : at + 135]
        if kind not in (b"0", b"\0") or not size.isdigit() or data[at + 345]:
            # long names, very large files and the like are told in extra headers
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
                yield from ((member.name, member.offset_data, member.size) for member in archive)
            return
        length = int(size, 8)
        found.append((data[at : at + 100].rstrip(b"\0").decode(), at + _BLOCK, length))
        at += _BLOCK + -(-length // _BLOCK) * _BLOCK
    yield from found


def build_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make `folder` by calling `write(temporary folder)` and renaming it: it is there whole, or not at all.

    A folder that is there already is left as it is; of several processes that build at once the first one's stays.
    Raises UserError when it cannot be written, for want of space or of permission.
    """
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        temporary.rename(folder)
    except OSError as error:
        # somebody else was faster: a folder cannot be renamed onto one that is not empty
        if not folder.is_dir():
            raise UserError(f"{folder}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _remove_left_overs(folder: Path) -> None:
    """Remove what builds that were killed long ago left beside the folder."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        if time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
