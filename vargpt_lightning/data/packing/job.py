"""Sources packed into shards: over several processes, resumed after a kill, with the same bytes whatever happens.

Each source names the parts of its input. Processes make each part into tar members by itself (`pack_parts`); this
process puts them together in order (`pack_state`), so that neither the number of processes nor a kill shows.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from vargpt_lightning.data.images.picture_files import MAX_PIXELS
from vargpt_lightning.data.packing.parts import COUNTED, PartTask, pack_part
from vargpt_lightning.data.packing.pool import in_order
from vargpt_lightning.data.packing.reasons import count_reasons
from vargpt_lightning.data.packing.state import WORK_NAME, Duplicates, ShardAssembler, add_counts, locked
from vargpt_lightning.data.shards.file_hashes import file_hashes, listing_hash
from vargpt_lightning.data.shards.format import FORMAT_VERSION, INDEX_NAME, OFFSETS_NAME, REJECTED_NAME
from vargpt_lightning.data.sources.base import Source, count_left_out
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json, write_bytes, write_json, write_jsonl

SHARD_BYTES = 256 * 2**20
ENOUGH_ROWS = 1000  # before the share of rejected rows means something
Watcher = Callable[[int, int, int, int], None]


@dataclass(frozen=True)
class SourceSpec:
    """What to read: the name of a source's module, the path it reads, where its pictures are, and its options."""

    name: str
    path: Path
    pictures: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PackSettings:
    """What the bytes of a packed folder depend on, besides its sources."""

    shard_bytes: int = SHARD_BYTES
    resize: int | None = None
    split: str = "train"
    seed: int = 0
    duplicates: Duplicates = "rename"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise UserError(f"shard bytes: {self.shard_bytes}; expected at least 1")
        if self.resize is not None and self.resize < 1:
            raise UserError(f"resize: {self.resize}; expected at least 1 pixel")
        if self.max_pixels < 1:
            raise UserError(f"max pixels: {self.max_pixels}; expected at least 1")
        if self.duplicates not in ("rename", "reject"):
            raise UserError(f"duplicates: {self.duplicates!r}; expected 'rename' or 'reject'")


def pack(
    sources: Sequence[SourceSpec],
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    processes: int = 1,
    resize: int | None = None,
    max_rejected_share: float = 0.05,
    split: str = "train",
    seed: int = 0,
    duplicates: Duplicates = "rename",
    max_pixels: int = MAX_PIXELS,
    hashes: bool = True,
    watch: Watcher | None = None,
) -> dict[str, Any]:
    """Pack the sources' records into shards in `out`, and return the index that was written beside them.

    The same call after a kill resumes where it was; with everything there already it returns at once.

    Args:
        shard_bytes: a shard is closed when it reaches this.
        resize: pictures whose short side is longer are made smaller, to this many pixels; None keeps their own bytes.
        max_rejected_share: of rows; more stop the run, as soon as there are enough rows to tell, or at the end.
        seed: for sources that choose words.
        duplicates: "rename" gives a record whose id was there before another one, "reject" leaves it out.
        max_pixels: pictures of more are rejected before they are decoded.
        hashes: of the input files are put into the manifest; without, a changed file is known by its size alone.
        watch: called with parts done, parts, records and rejected rows after each part.

    Raises:
        UserError: a source cannot be read, too many rows were rejected, nothing is left, `out` holds something else, or
            another process is packing into it.
    """
    settings = PackSettings(shard_bytes, resize, split, seed, duplicates, max_pixels)
    if processes < 1:
        raise UserError(f"processes: {processes}; expected at least 1")
    if not 0 <= max_rejected_share <= 1:
        raise UserError(f"max rejected share: {max_rejected_share}; expected a number from 0 to 1")
    out = Path(out)
    tasks, inputs, left_out = _plan(sources, settings, out / WORK_NAME, hashes)
    manifest = {"inputs": inputs, "settings": asdict(settings)}
    if (done := _finished(out, manifest)) is not None:
        return done
    with locked(out / WORK_NAME):
        _take_up(out, manifest)
        assembler = ShardAssembler(out, tasks, settings.shard_bytes, settings.duplicates)
        try:
            _assemble(assembler, tasks, processes, max_rejected_share, watch)
        finally:
            assembler.abandon()
        index = _write_index(out, assembler, manifest, left_out)
        shutil.rmtree(out / WORK_NAME, ignore_errors=True)
    return index


def _plan(
    sources: Sequence[SourceSpec], settings: PackSettings, work: Path, hashes: bool
) -> tuple[list[PartTask], list[Any], dict[str, dict[str, int]]]:
    """The parts of all sources in order, what the manifest says of each source, and files that none of them uses."""
    from vargpt_lightning.data.sources import get

    if not sources:
        raise UserError("nothing to pack; expected at least one source")
    tasks: list[PartTask] = []
    inputs = []
    left_out: dict[str, dict[str, int]] = {}
    for spec in sources:
        module = get(spec.name)
        options = _options(module, spec, settings.seed)
        parts = list(module.parts(spec.path, **options))
        if (unused := count_left_out(module, spec.path, parts, options)) is not None:
            add_counts(left_out, {spec.name: unused})
        for part in parts:
            task = PartTask(len(tasks), module.__name__, part, work, settings.resize, settings.max_pixels)
            tasks.append(task)
        stated = {key: value for key, value in options.items() if key not in ("pictures", "seed")}
        files = list(_files(spec.path, spec.pictures, parts, hashes))
        pictures = None if spec.pictures is None else str(spec.pictures)
        inputs.append(
            plain({"source": spec.name, "path": spec.path, "pictures": pictures, "options": stated, "files": files})
        )
    return tasks, inputs, left_out


def _options(module: Source, spec: SourceSpec, seed: int) -> dict[str, Any]:
    """The options for a source's `parts`; those that it does not have are refused."""
    taken = inspect.signature(module.parts).parameters
    names = [name for name, kind in taken.items() if kind.kind is kind.KEYWORD_ONLY and name != "pictures"]
    for name in spec.options:
        if name not in names and not any(kind.kind is kind.VAR_KEYWORD for kind in taken.values()):
            raise UserError(f"{spec.name}: {name!r} is not an option; there are {', '.join(names) or 'none'}")
    kinds = get_type_hints(module.parts)
    options = {name: _fitting(value, kinds.get(name), f"{spec.name} {name}") for name, value in spec.options.items()}
    if "seed" in names:
        options.setdefault("seed", seed)
    if spec.pictures is not None:
        options["pictures"] = spec.pictures
    return options


def _fitting(value: Any, kind: Any, where: str) -> Any:
    """An option's value as its source takes it: names may look like numbers; raises UserError for another type."""
    kinds = get_args(kind) or (kind,)
    if str in kinds or Path in kinds:
        return value if isinstance(value, str) or value is None else json.dumps(value)
    if any(get_origin(each) is Sequence for each in kinds) and not isinstance(value, list):
        return [value if isinstance(value, str) else json.dumps(value)]
    wanted = next((each for each in (bool, int) if each in kinds), None)
    if wanted is not None and type(value) is not wanted:
        raise UserError(f"{where}: {value!r}; expected {'true or false' if wanted is bool else 'a whole number'}")
    return value


def _files(path: Path, pictures: Path | None, parts: Sequence[Any], hashes: bool) -> Iterator[dict[str, Any]]:
    """What the parts are read from, and archives of their pictures, each once, with sizes and what tells changes."""
    from vargpt_lightning.data.sources.picture_store import find_archives

    found = list(dict.fromkeys(Path(part.path) for part in parts)) or [path]
    listed = (Path(part.options["pictures"]) for part in parts if getattr(part, "options", {}).get("listed"))
    found += [folder for folder in dict.fromkeys(listed) if folder not in found]
    if pictures is not None and pictures.exists():
        found += [file for file in find_archives(pictures) if file not in found]
    files = [file for file in found if file.is_file()]
    known = dict(zip(files, file_hashes(files), strict=True)) if hashes else {}
    for each in found:
        if each.is_dir():
            yield {"path": str(each), **listing_hash(each)}
        elif each.is_file():
            entry: dict[str, Any] = {"path": str(each), "bytes": each.stat().st_size}
            yield entry | ({"sha256": known[each]} if each in known else {})


def _finished(out: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The index of a folder that is packed already, from the same inputs with the same settings."""
    if not (out / INDEX_NAME).is_file():
        return None
    index: dict[str, Any] = read_json(out / INDEX_NAME)
    if index.get("manifest") != manifest:
        _refuse(out, index.get("manifest"), manifest)
    shutil.rmtree(out / WORK_NAME, ignore_errors=True)
    return index


def _take_up(out: Path, manifest: dict[str, Any]) -> None:
    """Note what is being packed, or check that a job begun here is the same."""
    file = out / WORK_NAME / "settings.json"
    if file.is_file():
        if (before := read_json(file)) != manifest:
            _refuse(out, before, manifest)
        return
    if there := sorted(path.name for path in out.iterdir() if path.name != WORK_NAME):
        raise UserError(f"{out}: holds {there[0]} already; expected an empty folder, or one that is being packed")
    write_json(file, manifest)


def _refuse(out: Path, before: Any, now: dict[str, Any]) -> None:
    """Say what differs between the job that was begun in a folder and the one asked for."""
    if not isinstance(before, dict):
        raise UserError(f"{out}: packed by other means; name another folder")
    old, new = before.get("settings", {}), now["settings"]
    changed = [f"{name} {old.get(name)!r}, now {new[name]!r}" for name in new if old.get(name) != new[name]]
    what = "; ".join(changed) or "its inputs (paths, sizes or options) were others"
    raise UserError(f"{out}: begun with {what}; name another folder, or remove this one")


def _assemble(
    assembler: ShardAssembler, tasks: list[PartTask], processes: int, most: float, watch: Watcher | None
) -> None:
    for number in in_order(pack_part, tasks[assembler.start :], processes):
        assembler.add(tasks[number])
        if watch is not None:
            watch(number + 1, len(tasks), assembler.kept, assembler.rejected_count)
        if assembler.kept + assembler.rejected_count >= ENOUGH_ROWS:
            _check_share(assembler, most)
    assembler.finish()
    _check_share(assembler, most)
    if not assembler.kept:
        write_jsonl(assembler.out / REJECTED_NAME, (row._asdict() for row in assembler.rejected))
        raise UserError(f"{assembler.out}: the sources gave no record{_commonest(assembler)}")


def _check_share(assembler: ShardAssembler, most: float) -> None:
    rejected = assembler.rejected_count
    rows = assembler.kept + rejected
    if rejected > most * rows:
        file = assembler.out / REJECTED_NAME
        write_jsonl(file, (row._asdict() for row in assembler.rejected))
        raise UserError(
            f"{rejected} of {counted(rows, 'row')} rejected ({rejected / rows:.1%}), more than {most:.1%}"
            f"{_commonest(assembler)}; all are in {file}; the same command with a larger --max-rejected (now {most:g}) "
            "resumes from here"
        )


def _commonest(assembler: ShardAssembler) -> str:
    """An example of the rejected rows, from the source with most."""
    rows = assembler.rejected
    if not rows:
        return ""
    source = Counter(row.source for row in rows).most_common(1)[0][0]
    return f"; the first of {source}: {next(row.reason for row in rows if row.source == source)}"


def _write_index(
    out: Path, assembler: ShardAssembler, manifest: dict[str, Any], left_out: dict[str, dict[str, int]]
) -> dict[str, Any]:
    """Write the three files beside the shards; the index, which says that all is there, last."""
    shards, rejected = assembler.shards, assembler.rejected
    by_source: dict[str, dict[str, int]] = {}
    kinds: Counter[str] = Counter()
    for shard in shards:
        add_counts(by_source, shard.sources)
        kinds.update(shard.kinds)
    for row in rejected:
        add_counts(by_source, {row.source: dict.fromkeys(COUNTED, 0) | {"rejected": 1}})
    index = {
        "format": FORMAT_VERSION,
        "name": out.resolve().name,
        "split": manifest["settings"]["split"],
        "count": assembler.kept,
        "bytes": sum(shard.bytes for shard in shards),
        "kinds": dict(sorted(kinds.items())),
        "pictures": {use: sum(counts[use] for counts in by_source.values()) for use in ("seen", "drawn")},
        "sources": {name: {**counts, "rejected": counts.get("rejected", 0)} for name, counts in by_source.items()},
        "rejected": len(rejected),
        "reasons": count_reasons(row.reason for row in rejected),
        "left_out": left_out,
        "renamed": sum(shard.renamed for shard in shards),
        "shards": [shard.entry for shard in shards],
        "manifest": manifest,
    }
    write_jsonl(out / REJECTED_NAME, (row._asdict() for row in rejected))
    samples = [sample for shard in shards for sample in shard.samples]
    write_bytes(out / OFFSETS_NAME, json.dumps(samples, separators=(",", ":")).encode())
    write_json(out / INDEX_NAME, index)
    return index
