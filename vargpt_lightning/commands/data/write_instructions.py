"""`vargpt data write-instructions`: captions in, requests to draw out, by templates or by a language model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.commands.data.options import (
    ENDPOINT_OPTIONS,
    add_endpoint,
    add_filters,
    json_object,
    share_number,
    word_span,
)
from vargpt_lightning.utils.arguments import Parser, seed_number, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder, user_path
from vargpt_lightning.utils.progress import Phases

if TYPE_CHECKING:
    from vargpt_lightning.data.writing.endpoint import EndpointWriter
    from vargpt_lightning.data.writing.filters import Similarity
    from vargpt_lightning.data.writing.seeds import Seeds
    from vargpt_lightning.data.writing.templates import TemplateWriter

EXAMPLE = """examples:
  vargpt data write-instructions captions.jsonl --out instructions
  vargpt data write-instructions photos --out instructions
  vargpt data write-instructions captions.parquet --out instructions --endpoint http://localhost:8000/v1 --model qwen
  vargpt data write-instructions captions.jsonl --out instructions --endpoint https://api.deepseek.com \\
      --model deepseek-chat --key-variable DEEPSEEK_KEY --max-requests 5000 --per-minute 600

CAPTIONS has id, picture (a path or name) and caption in each row, or is a folder: an imagefolder (metadata.csv, .jsonl
or .parquet), or pictures with .txt files.
OUT/instructions.json is in VARGPT's format; counts.json says what was left out and why. To resume an interrupted
command, run it again: no request is paid for twice.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data write-instructions",
        description="Write instruction data from captions of pictures: requests to draw them, and answers.",
        epilog=EXAMPLE,
    )
    add = result.add_argument
    add(
        "captions",
        type=user_path,
        metavar="CAPTIONS",
        help="a .jsonl or .parquet file, or a folder of .parquet or pictures, or an imagefolder",
    )
    add("--out", type=user_path, required=True, metavar="DIR", help="output folder; an interrupted run resumes")
    add("--seeds", type=user_path, metavar="FILE", help="a YAML of prompt and answer seeds (those that come along)")
    add("--seed", type=seed_number, default=0, metavar="S", help="of the choice of words (0)")
    add("--per-caption", type=whole(1, 100_000), default=1, metavar="N", help="texts for each caption (1)")
    add("--limit", type=whole(1), metavar="N", help="the first N captions")
    for name in ("id", "picture", "caption"):
        add(f"--{name}-column", default=name, metavar="NAME", help=f"what the column is called ({name})")
    add_endpoint(result.add_argument_group("a language model (without --endpoint, templates write)"))
    add_filters(result.add_argument_group("what is kept"))
    return result


def main(argv: list[str]) -> int:
    """Write, and print what was kept and what was not."""
    arguments = parser().parse_args(argv)
    output_folder(arguments.out)
    from vargpt_lightning.data.writing.captions import CaptionColumns, read_captions
    from vargpt_lightning.data.writing.filters import Filters, FilterSettings
    from vargpt_lightning.data.writing.job import write_instructions
    from vargpt_lightning.data.writing.seeds import read_seeds
    from vargpt_lightning.data.writing.summary import summary

    columns = CaptionColumns(arguments.id_column, arguments.picture_column, arguments.caption_column)
    settings = FilterSettings(
        word_span(arguments.request_words, "--request-words"),
        word_span(arguments.answer_words, "--answer-words"),
        "" if arguments.language == "none" else arguments.language,
        not arguments.any_nouns,
        None if arguments.duplicates == "none" else share_number(arguments.duplicates, "--duplicates"),
        arguments.min_clip,
    )
    writer = _writer(arguments, read_seeds(arguments.seeds))
    filters = Filters(settings, _similarity(arguments))
    bar = Phases("texts", {"ask": "asked", "write": "written"})
    try:
        counts = write_instructions(
            lambda: read_captions(arguments.captions, columns),
            arguments.out,
            writer,
            filters,
            per_caption=arguments.per_caption,
            limit=arguments.limit,
            progress=bar.tell,
        )
    finally:
        bar.close()
    print("\n".join(summary(counts, arguments.out)))
    return 0


def _writer(arguments: argparse.Namespace, seeds: Seeds) -> TemplateWriter | EndpointWriter:
    given = {name: getattr(arguments, name) for name in (*ENDPOINT_OPTIONS, "json_mode", "extra", "ask_unanswered")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.endpoint is None:
        if extra := [*given, *(["model"] if arguments.model else [])]:
            raise UserError(f"--{extra[0].replace('_', '-')} goes with --endpoint; templates take no such thing")
        from vargpt_lightning.data.writing.templates import TemplateWriter

        return TemplateWriter(seeds, arguments.seed)
    from vargpt_lightning.data.writing.endpoint import EndpointWriter, WriterSettings

    if "per_minute" in given:
        given["requests_per_minute"] = given.pop("per_minute")
    if "extra" in given:
        given["extra"] = json_object(given["extra"])
    return EndpointWriter(seeds, WriterSettings(arguments.endpoint, arguments.model or "", arguments.seed, **given))


def _similarity(arguments: argparse.Namespace) -> Similarity | None:
    """What measures pictures against captions: a CLIP of open_clip, loaded when it is asked for."""
    if arguments.min_clip is None:
        for name in ("clip_weights", "pictures"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} goes with --min-clip; expected a score")
        return None
    for name in ("clip_weights", "pictures"):
        if getattr(arguments, name) is None:
            raise UserError(f"--min-clip: expected --{name.replace('_', '-')} too")
    if not Path(arguments.clip_weights).is_file():
        raise UserError(f"--clip-weights {arguments.clip_weights}: no such file; expected weights of open_clip")
    from vargpt_lightning.evaluation.images.caption_scores import caption_scores

    return caption_scores(arguments.clip_model, arguments.clip_weights, arguments.pictures, arguments.clip_quick_gelu)
