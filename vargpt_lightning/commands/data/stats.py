"""`vargpt data stats`: what packed folders are made of, as a table in the terminal and a page with figures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.paths import output_file, output_folder, user_path

if TYPE_CHECKING:
    from vargpt_lightning.data.packing.stats import Measure

EXAMPLE = """examples:
  vargpt data stats data/llava-v1_5-mix665k data/imagenet-dialogues --out stats.html
  vargpt data stats data/llava-v1_5-mix665k --tokenizer weights/llava-1.5-7b-hf
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data stats",
        description="Show what packed folders are made of, by source, task, length and pictures.",
        epilog=EXAMPLE,
    )
    result.add_argument("folders", nargs="+", type=user_path, metavar="DIR", help="a packed folder")
    result.add_argument(
        "--out", type=user_path, default=Path("stats.html"), metavar="FILE", help="the page (stats.html)"
    )
    result.add_argument("--plots", type=user_path, metavar="DIR", help="write the figures there as PNG files, too")
    result.add_argument(
        "--tokenizer",
        type=user_path,
        metavar="PATH",
        help="count lengths in its tokens, of whole conversations as its chat template, or ours, has them (in words)",
    )
    result.add_argument(
        "--limit",
        type=whole(1),
        default=50_000,
        metavar="N",
        help="records of a folder that are read, evenly spread (50000)",
    )
    return result


def main(argv: list[str]) -> int:
    """Read the folders, print the table, write the page."""
    arguments = parser().parse_args(argv)
    from vargpt_lightning.data.packing.stats import describe_folder
    from vargpt_lightning.evaluation.data_reports.plots import plots
    from vargpt_lightning.evaluation.data_reports.stats_page import page, print_table

    output_file(arguments.out)
    if arguments.plots is not None:
        output_folder(arguments.plots)
    unit, measure = _measure(arguments.tokenizer)
    folders = [describe_folder(folder, limit=arguments.limit, measure=measure) for folder in arguments.folders]
    print_table(folders, unit)
    figures = plots(folders, unit)
    if arguments.plots is not None:
        for name, content in figures.items():
            write_bytes(arguments.plots / f"{name}.png", content)
    write_bytes(arguments.out, page(folders, unit, figures).encode())
    print(f"page: {arguments.out}")
    return 0


def _measure(tokenizer: Path | None) -> tuple[str, Measure]:
    """What lengths are counted in, and how."""
    from vargpt_lightning.data.packing.stats import words

    if tokenizer is None:
        return "words", words
    from vargpt_lightning.data.text.chat import ChatTemplate
    from vargpt_lightning.data.text.chat_files import has_template
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

    folder = tokenizer if tokenizer.is_dir() else tokenizer.parent
    template = ChatTemplate(TextTokenizer.load(tokenizer, has_template(folder)), seen_tokens=0, drawn_tokens=0)
    return "tokens", lambda record: len(template.render(record).ids)
