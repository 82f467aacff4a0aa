"""Noun phrases and objects of a prompt, as T2I-CompBench takes them from spaCy's en_core_web_sm. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.formats.layouts import read_jsonl
from vargpt_lightning.utils.errors import UserError

PIPELINE = "en_core_web_sm"
LEFT_OUT = ("top", "the side", "the left", "the right")  # phrases that name a place, not a thing
BETWEEN = ("on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near")


@dataclass(frozen=True)
class Words:
    """What a prompt is taken apart into.

    Args:
        phrases: its noun phrases, in order.
        objects: the two things whose places it tells; None where they are not found.
        without_adjectives: the prompt without them.
    """

    phrases: tuple[str, ...]
    objects: tuple[str, str] | None = None
    without_adjectives: str = ""


def read_words(file: Path, prompts: Sequence[str], complete: bool = False) -> list[Words]:
    """The words of prompts: of `<stem>.words.jsonl` beside their file, else by spaCy.

    A line has prompt, phrases, and perhaps objects and without_adjectives.

    Args:
        complete: whether prompts are sentences of several clauses, in which the objects stand around a preposition.

    Raises:
        UserError: a prompt is missing in the file, or there is neither the file nor spaCy with its pipeline.
    """
    beside = file.with_suffix(".words.jsonl")
    if not beside.is_file():
        pipeline = _pipeline(beside)
        return [prompt_words(pipeline(prompt), complete) for prompt in prompts]
    known = {row["prompt"]: row for row in read_jsonl(beside, ("prompt", "phrases"))}
    if lost := [prompt for prompt in prompts if prompt not in known]:
        raise UserError(f"{beside}: has no words of {lost[0]!r}; expected a line for each prompt of {file.name}")
    return [_words(known[prompt], f"{beside}, {prompt!r}") for prompt in prompts]


def _words(row: dict[str, Any], where: str) -> Words:
    objects = row.get("objects")
    if objects is not None and len(objects) != 2:
        raise UserError(f"{where}: objects are {objects}; expected two names, or null")
    phrases = tuple(map(str, row["phrases"]))
    both = None if objects is None else (str(objects[0]), str(objects[1]))
    return Words(phrases, both, str(row.get("without_adjectives") or row["prompt"]))


@cache
def _pipeline(beside: Path) -> Any:
    try:
        import spacy

        return spacy.load(PIPELINE)
    except (ImportError, OSError) as error:
        raise UserError(
            f"{beside}: there is no such file, and no spaCy with {PIPELINE} to find the words of prompts; expected one "
            f"of them: pip install spacy && python -m spacy download {PIPELINE}"
        ) from error


def prompt_words(doc: Any, complete: bool = False) -> Words:
    """The words of a prompt that spaCy has parsed."""
    phrases = tuple(chunk.text for chunk in doc.noun_chunks if chunk.text not in LEFT_OUT)
    plain = " ".join(token.text for token in doc if token.pos_ != "ADJ")
    if complete:
        return Words(phrases, _around(doc), plain)
    nouns = [token.text for token in doc if token.pos_ == "NOUN"]
    return Words(phrases, (nouns[0], nouns[-1]) if nouns else None, plain)


def _around(doc: Any) -> tuple[str, str] | None:
    """The things before and after the prepositions of place; None unless these are two in all."""
    found: list[str] = []
    for place in range(len(doc)):
        length = next((n for n in (3, 2, 1) if doc[place : place + n].text in BETWEEN), 0)
        if length:
            before = (doc[other] for other in range(place - 1, -1, -1))
            found += [token.text for token in before if token.pos_ in ("NOUN", "PROPN")][:1]
            found += _after(doc, place + length)
    return (found[0], found[1]) if len(found) == 2 else None


def _after(doc: Any, start: int) -> list[str]:
    """The first noun; where there is none, the end of the first proper name that something follows."""
    rest = range(start, len(doc))
    noun = next((place for place in rest if doc[place].pos_ == "NOUN"), None)
    if noun is not None:
        return [doc[noun].text]
    ends = (p for p in rest if p + 1 < len(doc) and doc[p].pos_ == "PROPN" and doc[p + 1].pos_ != "PROPN")
    return [doc[place].text for place in ends][:1]
