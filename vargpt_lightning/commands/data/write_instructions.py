"""`vargpt data write-instructions`: captions in, requests to draw out, by templates or by a language model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.arguments import Parser, seed_number
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import user_path

if TYPE_CHECKING:
    from vargpt_lightning.data.writing.captions import Caption
    from vargpt_lightning.data.writing.endpoint import EndpointWriter
    from vargpt_lightning.data.writing.filters import Similarity
    from vargpt_lightning.data.writing.seeds import Seeds
    from vargpt_lightning.data.writing.templates import TemplateWriter, Written

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
ENDPOINT_OPTIONS = {
    "temperature": (float, "TEMPERATURE", "of its sampling (1.0)"),
    "max_new_tokens": (int, "N", "of an answer (256)"),
    "examples": (int, "N", "seeds shown before each caption (3)"),
    "tries": (int, "N", "requests for a caption whose answers have the wrong form; each is paid for (1)"),
    "concurrency": (int, "N", "requests on their way at a time (8)"),
    "per_minute": (float, "N", "requests a minute at most (no limit)"),
    "retries": (int, "N", "of a request that was turned away: HTTP 429, 5xx, no connection (5)"),
    "timeout": (float, "SECONDS", "for an answer (120)"),
    "backoff": (float, "SECONDS", "before the first retry, doubled each time (1)"),
    "longest_wait": (float, "SECONDS", "that a service may ask to be left alone (120)"),
    "max_requests": (int, "N", "spend no more than N requests, over all runs into OUT"),
    "max_tokens": (int, "N", "spend no more than N tokens, over all runs into OUT"),
    "max_failures": (int, "N", "captions in a row that fail before the run stops (10)"),
    "key_variable": (str, "NAME", "the environment variable with the key (OPENAI_API_KEY)"),
    "length_field": (str, "NAME", "max_tokens, or max_completion_tokens for services that want that (max_tokens)"),
}


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
    add("--per-caption", type=int, default=1, metavar="N", help="texts for each caption (1)")
    add("--limit", type=int, metavar="N", help="the first N captions")
    for name in ("id", "picture", "caption"):
        add(f"--{name}-column", default=name, metavar="NAME", help=f"what the column is called ({name})")
    _add_endpoint(result.add_argument_group("a language model (without --endpoint, templates write)"))
    _add_filters(result.add_argument_group("what is kept"))
    return result


def _add_endpoint(group: Any) -> None:
    group.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible, such as http://localhost:8000/v1")
    group.add_argument("--model", metavar="NAME", help="its name there")
    for name, (kind, metavar, text) in ENDPOINT_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    group.add_argument("--json-mode", action="store_true", default=None, help="ask for JSON by response_format")
    group.add_argument("--extra", metavar="JSON", help="further fields of the request's body")
    group.add_argument(
        "--ask-unanswered",
        action="store_true",
        default=None,
        help="send again what was sent and got no usable answer (a time-out, a kill): it may be paid for twice",
    )


def _add_filters(group: Any) -> None:
    group.add_argument("--language", default="en", metavar="NAME", help="by script and stop words; none: no check (en)")
    group.add_argument("--request-words", default="2:120", metavar="LOW:HIGH", help="(2:120)")
    group.add_argument("--answer-words", default="1:80", metavar="LOW:HIGH", help="(1:80)")
    group.add_argument("--duplicates", default="0.9", metavar="SHARE", help="near duplicates from here on; none (0.9)")
    group.add_argument("--any-nouns", action="store_true", help="keep texts that share no noun with the caption")
    group.add_argument("--min-clip", type=float, metavar="SCORE", help="100 x cosine of picture and caption, by CLIP")
    group.add_argument("--clip-weights", metavar="FILE", help="open_clip weights, for --min-clip")
    group.add_argument("--clip-model", default="ViT-L-14-quickgelu", metavar="NAME", help="(ViT-L-14-quickgelu)")
    group.add_argument(
        "--clip-quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the weights' activation, if no name says it",
    )
    group.add_argument("--pictures", type=user_path, metavar="DIR", help="where the pictures are, for --min-clip")


def main(argv: list[str]) -> int:
    """Write, and print what was kept and what was not."""
    arguments = parser().parse_args(argv)
    from vargpt_lightning.data.writing.captions import CaptionColumns, read_captions
    from vargpt_lightning.data.writing.filters import Filters, FilterSettings
    from vargpt_lightning.data.writing.job import write_instructions
    from vargpt_lightning.data.writing.seeds import read_seeds

    columns = CaptionColumns(arguments.id_column, arguments.picture_column, arguments.caption_column)
    settings = FilterSettings(
        _span(arguments.request_words, "--request-words"),
        _span(arguments.answer_words, "--answer-words"),
        "" if arguments.language == "none" else arguments.language,
        not arguments.any_nouns,
        None if arguments.duplicates == "none" else _number(arguments.duplicates, "--duplicates"),
        arguments.min_clip,
    )
    writer = _writer(arguments, read_seeds(arguments.seeds))
    filters = Filters(settings, _similarity(arguments))
    bar = _Bar()
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
    _print(counts, arguments.out)
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
        given["extra"] = _object(given["extra"])
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
    from vargpt_lightning.data.images.pictures import PictureError, decode_picture
    from vargpt_lightning.evaluation.images.clip_score import cosine_scores, open_clip_model

    if not Path(arguments.clip_weights).is_file():
        raise UserError(f"--clip-weights {arguments.clip_weights}: no such file; expected weights of open_clip")
    said = {} if arguments.clip_quick_gelu is None else {"quick_gelu": arguments.clip_quick_gelu}
    model = open_clip_model(arguments.clip_model, arguments.clip_weights, **said)
    root = arguments.pictures.resolve()

    def measure(caption: Caption, written: Written) -> float | None:
        file = (root / caption.picture).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        try:
            picture = decode_picture(file.read_bytes(), caption.picture)
        except PictureError:
            return None
        return float(cosine_scores(model.pictures([picture]), model.texts([caption.text])[0])[0])

    return measure


def _span(text: str, name: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    if not colon or not low.isdecimal() or not high.isdecimal():
        raise UserError(f"{name} {text}: expected LOW:HIGH, such as 2:120")
    return int(low), int(high)


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} {text}: expected a number, or none") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"--extra {text}: expected a JSON object, such as '{{\"top_p\": 0.9}}'")
    return value


class _Bar:
    """A line that counts texts, where somebody looks."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:.0f} texts"), TimeElapsedColumn())
        console = Console(file=sys.stderr)
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}
        self._bar.start()

    def tell(self, phase: str, count: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task({"ask": "asked", "write": "written"}.get(phase, phase), total=None)
        self._bar.advance(self._tasks[phase], count)

    def close(self) -> None:
        self._bar.stop()


def _print(counts: Mapping[str, Any], out: Path) -> None:
    say: Callable[[str], None] = print
    say(f"captions: {counts['captions']}, written: {counts['written']}")
    for name, count in sorted(counts["rejected"].items(), key=lambda item: -item[1]):
        say(f"  left out, {name}: {count}")
    for name, count in counts["later"].items():
        say(f"  {name}: {count}; the same command tries again")
    asked = counts["requests"]
    if asked:
        say(f"requests answered: {asked['answered']}, tokens: {asked['prompt_tokens']} + {asked['completion_tokens']}")
        if asked["unanswered"]:
            say(f"requests without an answer, perhaps paid for: {asked['unanswered']} (--ask-unanswered asks again)")
        if not asked["within_limits"]:
            say("the spending limit was reached; run again with a higher one to resume")
    say(f"instructions: {out / 'instructions.json'}")
