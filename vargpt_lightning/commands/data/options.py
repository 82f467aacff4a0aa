"""Options of `vargpt data write-instructions`: the language model, what is kept, and how values are read."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vargpt_lightning.utils.arguments import MOST, number, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import user_path

ENDPOINT_OPTIONS = {
    "temperature": (number(0, 100), "TEMPERATURE", "of its sampling (1.0)"),
    "max_new_tokens": (whole(1), "N", "of an answer (256)"),
    "examples": (whole(0, 1000), "N", "seeds shown before each caption (3)"),
    "tries": (whole(1, 1000), "N", "requests for a caption whose answers have the wrong form; each is paid for (1)"),
    "concurrency": (whole(1, 10_000), "N", "requests on their way at a time (8)"),
    "per_minute": (number(0, MOST, above=True), "N", "requests a minute at most (no limit)"),
    "retries": (whole(0, 1000), "N", "of a request that was turned away: HTTP 429, 5xx, no connection (5)"),
    "timeout": (number(0, 10**9, above=True), "SECONDS", "for an answer (120)"),
    "backoff": (number(0, 10**9), "SECONDS", "before the first retry, doubled each time (1)"),
    "longest_wait": (number(0, 10**9), "SECONDS", "that a service may ask to be left alone (120)"),
    "max_requests": (whole(1), "N", "spend no more than N requests, over all runs into OUT"),
    "max_tokens": (whole(1), "N", "spend no more than N tokens, over all runs into OUT"),
    "max_failures": (whole(1), "N", "captions in a row that fail before the run stops (10)"),
    "key_variable": (str, "NAME", "the environment variable with the key (OPENAI_API_KEY)"),
    "length_field": (str, "NAME", "max_tokens, or max_completion_tokens for services that want that (max_tokens)"),
}


def add_endpoint(group: Any) -> None:
    """Add which language model writes, and how it is asked."""
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


def add_filters(group: Any) -> None:
    """Add what of the texts is kept."""
    group.add_argument("--language", default="en", metavar="NAME", help="by script and stop words; none: no check (en)")
    group.add_argument("--request-words", default="2:120", metavar="LOW:HIGH", help="(2:120)")
    group.add_argument("--answer-words", default="1:80", metavar="LOW:HIGH", help="(1:80)")
    group.add_argument("--duplicates", default="0.9", metavar="SHARE", help="near duplicates from here on; none (0.9)")
    group.add_argument("--any-nouns", action="store_true", help="keep texts that share no noun with the caption")
    group.add_argument(
        "--min-clip", type=number(-100, 100), metavar="SCORE", help="100 x cosine of picture and caption, by CLIP"
    )
    group.add_argument("--clip-weights", metavar="FILE", help="open_clip weights, for --min-clip")
    group.add_argument("--clip-model", default="ViT-L-14-quickgelu", metavar="NAME", help="(ViT-L-14-quickgelu)")
    group.add_argument(
        "--clip-quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the weights' activation, if no name says it",
    )
    group.add_argument("--pictures", type=user_path, metavar="DIR", help="where the pictures are, for --min-clip")


def word_span(text: str, name: str) -> tuple[int, int]:
    """Read LOW:HIGH; raises UserError for another form."""
    low, colon, high = text.partition(":")
    if not colon or not low.isdecimal() or not high.isdecimal():
        raise UserError(f"{name} {text}: expected LOW:HIGH, such as 2:120")
    return int(low), int(high)


def share_number(text: str, name: str) -> float:
    """Read a number; raises UserError for anything else."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} {text}: expected a number, or none") from None


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object; raises UserError for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"--extra {text}: expected a JSON object, such as '{{\"top_p\": 0.9}}'")
    return value
