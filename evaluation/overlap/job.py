"""The whole search: evaluation records hashed, shards compared, what was found counted and listed.

OUT/overlap.json      counts for each set of evaluation records, and what was compared with what
OUT/overlap.jsonl     a row for each evaluation record that was found: set, id, kind, question, where in training
OUT/.overlap/         hashes and found shards, so that the same command resumes, and a new shard alone is read
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.evaluation.base.benchmark import Benchmark
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.harness.outputs import write_rows
from vargpt_lightning.evaluation.overlap.hashes import NEAR
from vargpt_lightning.evaluation.overlap.known import ARRAYS, Asked, Known, read_rows, remember
from vargpt_lightning.evaluation.overlap.search import KINDS, Matches, merge, scan, signature, tasks_of
from vargpt_lightning.runs.folder import now
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json

VERSION = 1  # of the hashes: another one reads everything again
WORK = ".overlap"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """What must not have been trained on: benchmarks with their data, and packed folders of held-out records."""

    benchmarks: Mapping[str, tuple[Benchmark, Path]] = field(default_factory=dict)
    folders: Sequence[Path] = ()

    def key(self) -> str:
        """A fingerprint of all data."""
        there = {name: signature(data) for name, (_, data) in self.benchmarks.items()}
        for name, (module, data) in self.benchmarks.items():  # what a file describes has its data elsewhere
            source = Path(str(module.load(data, pictures=False).source))
            there[name] += signature(source) if source.exists() else ""
        held_out = {str(folder): [shard["sha256"] for shard in _shards(folder)] for folder in self.folders}
        return short_hash(VERSION, there, held_out)

    def records(self) -> Iterator[Asked]:
        """The evaluation records, one after the other."""
        for name, (module, data) in self.benchmarks.items():
            for record in module.load(data):
                pictures = []
                for picture in module.pictures(record):
                    try:
                        pictures += [] if picture is None else [picture.bytes()]
                    except UserError:
                        continue  # a question whose picture cannot be read is not asked either
                question = str(record.get("question") or "")
                yield Asked(name, str(module.record_id(record)), question, tuple(pictures))
        for folder in self.folders:
            for held in ShardDataset(folder):
                question = next((turn.text for turn in held.turns if turn.role == "user"), "")
                files = tuple(part.data for part in held.pictures() if part.data is not None)
                yield Asked(folder.name, held.id, question, files)


def _shards(folder: Path) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = ShardDataset(folder).index["shards"]
    return shards


def find_overlap(
    folders: Sequence[Path],
    evaluated: Evaluated,
    out: Path,
    *,
    near: int = NEAR,
    processes: int = 1,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Compare packed folders with evaluation records, and return what is written to OUT/overlap.json.

    Args:
        folders: packed training data.
        evaluated: what they are compared with; its hashes are kept in memory, about 500 bytes a picture.
        near: bits of 128 by which near duplicates may differ, at most 7.
        processes: shards that are read at the same time.
        tell: is told how far the work is.

    Raises:
        UserError: a folder is not packed, is on both sides, or there are no evaluation records.
    """
    both = {folder.resolve() for folder in folders} & {folder.resolve() for folder in evaluated.folders}
    if both:
        raise UserError(f"{next(iter(both))}: is training data and held out; expected different folders")
    key = evaluated.key()
    kept = out / WORK / f"known-{key}"
    known, broken = _known(evaluated, kept, tell)
    tasks = tasks_of(list(folders), out / WORK / "shards", f"{key}-{near}")
    every: Matches = {kind: {} for kind in KINDS}
    totals: Counter[str] = Counter()
    for number, found in enumerate(scan(tasks, kept, near, processes), 1):
        totals.update(records=found.records, pictures=found.pictures, broken=found.broken)
        for kind, matches in found.matches.items():
            merge(every[kind], matches, found.folder.name)
        tell(f"shard {number} of {len(tasks)}, {totals['records']:,} training records compared")
    rows = read_rows(kept)
    listed = _listed(rows, known, every)
    write_rows(out / "overlap.jsonl", listed)
    result = {
        "version": VERSION,
        "sets": _counts(rows, listed),
        "training": {"folders": [str(folder) for folder in folders], **totals},
        "evaluation": {"records": len(rows), "pictures": len(known.files_U), "broken": broken},
        "near": near,
        "created": now(),
    }
    write_json(out / "overlap.json", result)
    return result


def _known(evaluated: Evaluated, kept: Path, tell: Tell) -> tuple[Known, int]:
    if (kept / ARRAYS).is_file():
        return Known.load(kept), 0

    def counted() -> Iterator[Asked]:
        for number, asked in enumerate(evaluated.records(), 1):
            if number % 100 == 0:
                tell(f"{number:,} evaluation records hashed")
            yield asked

    known, broken = remember(counted(), kept)
    if not len(known.texts_R):
        raise UserError("there are no evaluation records; expected --benchmarks with --data, or --heldout DIR")
    return known, broken


def _listed(rows: Sequence[Mapping[str, str]], known: Known, every: Matches) -> list[dict[str, Any]]:
    """A row for each evaluation record that was found, with all ways in which it was; the first of KINDS names it."""
    listed = []
    for number, row in enumerate(rows):
        ways = {kind: every[kind].get(str(number)) for kind in KINDS[:-1]}
        ways[KINDS[-1]] = every[KINDS[-1]].get(str(int(known.texts_R[number])))
        found = {kind: entry for kind, entry in ways.items() if entry is not None}
        if found:
            where = {
                kind: {"count": count, "records": [{"record": record, "bits": bits} for record, bits in first]}
                for kind, (count, first) in found.items()
            }
            listed.append({**row, "kind": next(iter(found)), "found": where})
    return listed


def _counts(rows: Sequence[Mapping[str, str]], listed: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many records of each set there are, and how many were found in each way, the closest alone."""
    sizes = Counter(row["set"] for row in rows)
    found = Counter((row["set"], row["kind"]) for row in listed)
    return {name: {"records": size, **{kind: found[name, kind] for kind in KINDS}} for name, size in sizes.items()}
