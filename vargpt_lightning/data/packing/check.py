"""A packed folder held against what its index says: every shard, sample and picture, all that is wrong, not the first.

Reads shards from the front to the end, one member in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vargpt_lightning.data.images.picture_files import MAX_PIXELS, decode_picture
from vargpt_lightning.data.packing.pool import in_order
from vargpt_lightning.data.shards.format import INDEX_NAME, OFFSETS_NAME, REJECTED_NAME
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError, near_folder
from vargpt_lightning.utils.files import read_json, read_jsonl

_ENOUGH = 20  # problems of one shard that are told one by one


@dataclass
class Found:
    """What a shard holds, and what is wrong with it."""

    problems: list[str] = field(default_factory=list)
    count: int = 0
    ids: list[str] = field(default_factory=list)
    pictures: dict[str, int] = field(default_factory=lambda: {SEEN: 0, DRAWN: 0})
    samples: list[list[Any]] = field(default_factory=list)

    def say(self, problem: str) -> None:
        """Note a problem; what a broken shard has too many of is counted."""
        self.problems.append(problem)

    def told(self) -> list[str]:
        """The problems, the first ones in words."""
        more = len(self.problems) - _ENOUGH
        return self.problems if more <= 0 else [*self.problems[:_ENOUGH], f"... and {more} more in the same shard"]


def check_folder(folder: Path, *, decode: bool = True, processes: int = 1) -> Iterator[str]:
    """Yield what is wrong with a packed folder, in words: nothing when all is well.

    Compared are sizes, hashes, counts, offsets and totals; each record is parsed and each picture decoded, the latter
    only with `decode`. Raises UserError when the folder has no readable index at all.
    """
    index, offsets = _index(folder), _offsets(folder)
    settings = (index.get("manifest") or {}).get("settings", {})
    limit = settings.get("max_pixels", MAX_PIXELS) if decode else None
    tasks = [(folder, number, shard) for number, shard in enumerate(index["shards"])]
    ids: dict[bytes, str] = {}
    totals: dict[str, int] = {"count": 0, SEEN: 0, DRAWN: 0}
    places = 0
    for (_, _, shard), found in zip(tasks, in_order(partial(_check, limit=limit), tasks, processes), strict=True):
        where = shard["file"]
        expected = None if offsets is None else offsets[places : places + shard["count"]]
        places += shard["count"]
        if expected is not None and found.samples and expected != found.samples:
            found.say(f"{where}: {_first_difference(expected, found.samples)}")
        yield from found.told()
        yield from _repeated(found.ids, where, ids)
        totals["count"] += found.count
        for use, count in found.pictures.items():
            totals[use] += count
    yield from _totals(folder, index, offsets, totals)


def _index(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise UserError(f"{folder}: is a file; expected a folder of packed records")
    if not (folder / INDEX_NAME).is_file():
        raise UserError(f"{folder / INDEX_NAME}: not found; expected a folder of packed records{near_folder(folder)}")
    index = read_json(folder / INDEX_NAME)
    try:
        assert isinstance(index["count"], int) and index["pictures"].keys() >= {SEEN, DRAWN}
        assert all({"file", "count", "bytes", "sha256"} <= shard.keys() for shard in index["shards"])
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / INDEX_NAME}: expected an index written by packing ({error!r})") from error
    return dict(index)


def _offsets(folder: Path) -> list[Any] | None:
    try:
        value = read_json(folder / OFFSETS_NAME)
    except (UserError, OSError):
        return None
    return value if isinstance(value, list) else None


def _check(task: tuple[Path, int, dict[str, Any]], *, limit: int | None) -> Found:
    """Look at one shard; pictures are decoded if there is a limit to their pixels."""
    folder, number, shard = task
    found, path = Found(), folder / shard["file"]
    if not _safe(shard["file"]) or not path.is_file():
        found.say(f"{shard['file']}: the shard is missing; the index expects {shard['bytes']} bytes")
        return found
    size = path.stat().st_size
    if size != shard["bytes"]:
        found.say(f"{path.name}: {size} bytes, the index expects {shard['bytes']}: truncated or replaced")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard["sha256"]:
            found.say(f"{path.name}: sha256 {digest[:12]}..., the index says {shard['sha256'][:12]}...")
        file.seek(0)
        _read_samples(file, path.name, number, found, limit)
    if found.count != shard["count"]:
        found.say(f"{path.name}: {counted(found.count, 'record')}, the index expects {shard['count']}")
    return found


def _read_samples(file: IO[bytes], name: str, number: int, found: Found, limit: int | None) -> None:
    """Read a shard's members, and check each sample when its last one was read."""
    members: dict[str, tuple[list[int], bytes]] = {}
    current: str | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if not member.isfile() or not _safe(member.name):
                    found.say(f"{name}: member {member.name!r} is no file inside the folder; expected a plain name")
                    continue
                key, _, ending = member.name.partition(".")
                if key != current and current is not None:
                    _check_sample(current, members, name, number, found, limit)
                    members = {}
                current = key
                members[ending] = ([member.offset_data, member.size], _content(archive, member))
    except (tarfile.TarError, OSError, EOFError) as error:
        found.say(f"{name}: no whole tar archive ({error})")
        return
    if current is not None:
        _check_sample(current, members, name, number, found, limit)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    data = b"" if content is None else content.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"member {member.name!r} has {len(data)} of its {member.size} bytes")
    return data


def _safe(name: str) -> bool:
    """Whether a member's name stays in the folder it is unpacked to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _check_sample(
    key: str, members: dict[str, tuple[list[int], bytes]], shard: str, number: int, found: Found, limit: int | None
) -> None:
    where = f"{shard}: sample {key!r}"
    found.count += 1
    if "json" not in members:
        found.say(f"{where}: has no .json; it has {', '.join(members)}")
        return
    names = [name for name in members if name.split(".")[0].isdigit()]
    if strange := sorted(set(members) - set(names) - {"json"}):
        found.say(f"{where}: member .{strange[0]} is neither the record nor a picture")
    names.sort(key=lambda name: int(name.split(".")[0]))
    found.samples.append([number, members["json"][0], *(members[name][0] for name in names)])
    try:
        record = Record.from_json(json.loads(members["json"][1].decode()), [members[name][1] for name in names])
    except (ValueError, AttributeError, TypeError) as error:
        found.say(f"{where}: {error}")
        return
    found.ids.append(record.id)
    for part in record.pictures():
        found.pictures[part.use] += 1
    if limit is not None:
        for part in record.pictures():
            _decode(part.data, f"{where}: picture {part.name!r}", found, limit)


def _decode(data: bytes | None, where: str, found: Found, max_pixels: int) -> None:
    try:
        decode_picture(data, where, max_pixels)
    except UserError as error:
        found.say(str(error))


def _first_difference(expected: list[Any], found: list[Any]) -> str:
    pairs = enumerate(zip(expected, found, strict=False))
    place = next((place for place, (one, other) in pairs if one != other), min(len(expected), len(found)))
    return f"{OFFSETS_NAME} disagrees with the shard from record {place} on"


def _repeated(names: list[str], where: str, seen: dict[bytes, str]) -> Iterator[str]:
    """Ids that an earlier record has; names are kept as short hashes."""
    for name in names:
        key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if key in seen:
            yield f"{where}: id {name!r} is in {seen[key]} already"
        seen.setdefault(key, where)


def _totals(folder: Path, index: dict[str, Any], offsets: list[Any] | None, totals: dict[str, int]) -> Iterator[str]:
    """What the index as a whole says wrongly, and shards that it does not name."""
    stated = {"count": index["count"], **{use: index["pictures"][use] for use in (SEEN, DRAWN)}}
    words = {"count": "records", SEEN: "seen pictures", DRAWN: "drawn pictures"}
    for name, count in stated.items():
        if totals[name] != count:
            yield f"{INDEX_NAME}: says {count} {words[name]}, the shards hold {totals[name]}"
    if (total := sum(shard["bytes"] for shard in index["shards"])) != index.get("bytes", total):
        yield f"{INDEX_NAME}: says {index['bytes']} bytes, its shards add up to {total}"
    by_source = index.get("sources", {})
    if by_source and sum(counts["count"] for counts in by_source.values()) != index["count"]:
        yield f"{INDEX_NAME}: the sources' counts do not add up to {index['count']}"
    if offsets is None:
        yield f"{OFFSETS_NAME}: missing or no JSON; expected one entry a record"
    elif len(offsets) != index["count"]:
        yield f"{OFFSETS_NAME}: {counted(len(offsets), 'record')}, the index says {index['count']}"
    if "rejected" in index:
        listed = len(read_jsonl(folder / REJECTED_NAME))
        if listed != index["rejected"]:
            yield f"{REJECTED_NAME}: {counted(listed, 'row')}, the index says {index['rejected']}"
    named = {shard["file"] for shard in index["shards"]}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in named:
            yield f"{path.name}: a shard that the index does not name"
