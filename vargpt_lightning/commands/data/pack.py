"""`vargpt data pack`: corpora made into shards. Imports no torch."""

from __future__ import annotations

import argparse

from vargpt_lightning.data.images.picture_files import MAX_PIXELS
from vargpt_lightning.data.packing.job import SHARD_BYTES, pack
from vargpt_lightning.data.packing.source_text import read_spec
from vargpt_lightning.data.packing.summary import MEGABYTE, summary
from vargpt_lightning.data.sources import names
from vargpt_lightning.utils.arguments import MOST, PIXELS, Parser, number, seed_number, whole
from vargpt_lightning.utils.capacity import add_processes, asked_processes
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.paths import output_folder, user_path
from vargpt_lightning.utils.progress import bar

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
        "--shard-mb",
        type=number(0, MOST, above=True),
        default=SHARD_BYTES / MEGABYTE,
        metavar="MB",
        help="size of a shard (%(default)g)",
    )
    result.add_argument(
        "--resize",
        type=whole(1, PIXELS),
        metavar="PIXELS",
        help="shrink pictures whose short side is longer than this (default: keep the files)",
    )
    result.add_argument(
        "--max-rejected",
        type=number(0, 1),
        default=0.05,
        metavar="SHARE",
        help="stop above this share of bad rows (0.05)",
    )
    result.add_argument(
        "--max-pixels",
        type=whole(1),
        default=MAX_PIXELS,
        metavar="N",
        help="reject larger pictures undecoded (%(default)s)",
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
    with bar("packing", _told) as watch:
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


def _told(kept: int, rejected: int) -> str:
    return f"{counted(kept, 'record')}, {rejected:,} rejected"
