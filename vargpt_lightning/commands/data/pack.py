"""`vargpt data pack`: corpora made into shards. Imports no torch."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vargpt_lightning.data.images.picture_files import MAX_PIXELS
from vargpt_lightning.data.packing.job import SHARD_BYTES, SourceSpec, Watcher, pack
from vargpt_lightning.data.shards.format import REJECTED_NAME
from vargpt_lightning.data.sources import names
from vargpt_lightning.utils.arguments import Parser, seed_number
from vargpt_lightning.utils.capacity import add_processes, asked_processes
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder, user_path

MEGABYTE = 2**20
EXAMPLE = """examples:
  vargpt data pack llava:llava_v1_5_mix665k.json,pictures=images --out data/llava-v1_5-mix665k --processes 8
  vargpt data pack captions:photos --out data/photos --resize 512

A SOURCE is NAME:PATH[,OPTION=VALUE ...]. To resume an interrupted command, run it again. The result is the same to the
byte, also with another number of processes.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data pack",
        description="Pack corpora into webdataset shards with an index.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help=f"NAME:PATH[,OPTION=VALUE ...]; names: {', '.join(names())}; the option `pictures` says where these are",
    )
    result.add_argument("--out", type=user_path, required=True, metavar="DIR", help="the folder to write")
    add_processes(result, "processes that read and encode (1)")
    result.add_argument(
        "--shard-mb", type=float, default=SHARD_BYTES / MEGABYTE, metavar="MB", help="size of a shard (%(default)g)"
    )
    result.add_argument(
        "--resize",
        type=int,
        metavar="PIXELS",
        help="shrink pictures whose short side is longer than this (default: keep the files)",
    )
    result.add_argument(
        "--max-rejected", type=float, default=0.05, metavar="SHARE", help="stop above this share of bad rows (0.05)"
    )
    result.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="reject larger pictures undecoded (%(default)s)"
    )
    result.add_argument("--split", default="train", help="train, val or test, stored as information only (train)")
    result.add_argument("--seed", type=seed_number, default=0, help="for sources that choose words (0)")
    result.add_argument(
        "--duplicates",
        choices=("rename", "reject"),
        default="rename",
        help="what to do with an id that occurred before",
    )
    result.add_argument(
        "--no-hashes",
        action="store_true",
        help="do not hash the input files for the manifest (hashing reads them once more)",
    )
    return result


def main(argv: list[str]) -> int:
    """Pack, and say what came of it."""
    arguments = parser().parse_args(argv)
    processes = asked_processes(arguments)
    output_folder(arguments.out)
    if not math.isfinite(arguments.shard_mb):
        raise UserError(f"--shard-mb {arguments.shard_mb}: expected a number of megabytes")
    with _progress() as watch:
        index = pack(
            [read_spec(text) for text in arguments.sources],
            arguments.out,
            shard_bytes=int(arguments.shard_mb * MEGABYTE),
            processes=processes,
            resize=arguments.resize,
            max_rejected_share=arguments.max_rejected,
            split=arguments.split,
            seed=arguments.seed,
            duplicates=arguments.duplicates,
            max_pixels=arguments.max_pixels,
            hashes=not arguments.no_hashes,
            watch=watch,
        )
    print(summary(index, arguments.out))
    return 0


def read_spec(text: str) -> SourceSpec:
    """Return what NAME:PATH,OPTION=VALUE,... says; values that JSON knows (numbers, true, lists) are taken as such.

    Raises:
        UserError: it is not of this form.
    """
    name, colon, rest = text.partition(":")
    path, *options = re.split(r",(?=\w+=)", rest)
    if not colon or not path or not name:
        raise UserError(f"source {text!r}: expected NAME:PATH, such as {names()[0] if names() else 'llava'}:{text}")
    values: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    values = {key: str(Path(value).expanduser()) if _from_home(value) else value for key, value in values.items()}
    pictures = values.pop("pictures", None)
    return SourceSpec(name, Path(path).expanduser(), None if pictures is None else Path(str(pictures)), values)


def _from_home(value: Any) -> bool:
    # behind a comma the shell leaves it as it is
    return isinstance(value, str) and value.startswith("~")


@contextmanager
def _progress() -> Iterator[Watcher | None]:
    """A bar over the parts, where there is a terminal to see it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("parts", total=None, rows="")

        def watch(done: int, total: int, kept: int, rejected: int) -> None:
            bar.update(task, completed=done, total=total, rows=f"{counted(kept, 'record')}, {rejected:,} rejected")

        yield watch


def summary(index: dict[str, Any], out: Path) -> str:
    """Return what was packed in a few lines."""
    size = f"{index['bytes'] / MEGABYTE:,.1f} MB in {counted(len(index['shards']), 'shard')}"
    lines = [f"{out}: {counted(index['count'], 'record')}, {size}"]
    for name, counts in index["sources"].items():
        pictures = f"{counts['seen']:,} seen and {counted(counts['drawn'], 'drawn picture')}"
        rejected = counted(counts["rejected"], "row")
        lines.append(f"  {name}: {counted(counts['count'], 'record')}, {pictures}, {rejected} rejected")
    if index["renamed"]:
        lines.append(f"  {counted(index['renamed'], 'id')} occurred before, and got a number")
    lines += [f"  {count:,} rejected for {reason}" for reason, count in index.get("reasons", {}).items()]
    if index["rejected"]:
        lines.append(f"  why each row was rejected: {out / REJECTED_NAME}")
    for name, counts in index.get("left_out", {}).items():
        if counts:
            told = ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items()))
            lines.append(f"  {name}: {counted(sum(counts.values()), 'file')} not used: {told}")
    return "\n".join(lines)
