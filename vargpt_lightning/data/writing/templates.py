"""The writer that needs no network: seeds filled with clauses of the caption. What it writes follows from seed and id.

A caption of a noun phrase ("a photo of a tench on grass. The fish is green.") is asked for whole, by its beginning
alone, or by its beginning with the rest as a sentence of its own; the answer names it or not. One that is a sentence
("A dog runs on the beach") gets requests that take sentences.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from vargpt_lightning.data.openmoji.wording import capital
from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.seeds import MARK, Seeds

_PICTURE = r"(?:photo(?:graph)?|picture|image|view|shot|drawing|painting)"
_LEAD = re.compile(
    rf"^(?:(?:in )?(?:the|this) {_PICTURE} (?:shows|depicts|features|is of|there is|there are)"
    rf"|(?:an? )?(?:[a-z-]+ ){{0,2}}{_PICTURE} (?:of|showing)|there (?:is|are)|this is|it is)\s+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[^\s.][.!?])\s+(?=[A-Z\"'(])")
_LISTED = re.compile(r", (?:and|or) ")
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|sits|stands|runs|holds|looks|lies|plays|swims|walks|eats|flies|rests|wears|rides"
    r"|jumps|carries|drives|hangs|grows|floats|shows|leans|watches|smiles|drinks)\b",
    re.IGNORECASE,
)
_DETERMINERS = "a an the one two three four five six seven eight nine ten some several many his her its"
_LOWERED = frozenset(_DETERMINERS.split())
_OPENING_SHARE = 0.15


@dataclass(frozen=True)
class Written:
    """A request and the answer's sentence."""

    request: str
    answer: str


@dataclass(frozen=True)
class Clauses:
    """A caption taken apart: its beginning, the rest of its first sentence, and further sentences."""

    head: str
    rest: str
    further: str
    is_phrase: bool

    @property
    def first(self) -> str:
        return f"{self.head}, {self.rest}" if self.rest else self.head


class TemplateWriter:
    """Writes requests and answers from seeds; the n-th of a caption follows from the run's seed, the id and n alone."""

    name = "templates"

    def __init__(self, seeds: Seeds, seed: int = 0) -> None:
        self.seeds, self.seed = seeds, seed
        self._plain_answers = [answer for answer in seeds.answers if MARK not in answer]

    @property
    def settings(self) -> dict[str, object]:
        """All that the texts depend on."""
        return {"writer": self.name, "seed": self.seed, "seeds": self.seeds.digest}

    def write(self, caption: Caption, number: int = 0) -> Written:
        """Return the n-th request for the caption, with its answer."""
        rng = random.Random(f"{self.seed}:{number}:{caption.id}")
        parts = clauses(caption.text)
        request = self._request(parts, rng)
        if self.seeds.openings and rng.random() < _OPENING_SHARE:
            request = f"{rng.choice(self.seeds.openings)} {request}"
        answers = self.seeds.answers if parts.is_phrase else self._plain_answers
        named = parts.first if rng.random() < 0.5 else parts.head
        return Written(request, rng.choice(answers).replace(MARK, named))

    def _request(self, parts: Clauses, rng: random.Random) -> str:
        if not parts.is_phrase:
            return " ".join([_fill(rng.choice(self.seeds.scenes), capital(parts.first)), *_sentence(parts.further)])
        prompt = rng.choice(self.seeds.prompts)
        if parts.rest and rng.random() < 0.3:
            return f"{_fill(prompt, parts.head)} {_fill(rng.choice(self.seeds.details), capital(parts.rest))}"
        request = _fill(prompt, parts.first if rng.random() < 0.8 else parts.head)
        if parts.further and rng.random() < 0.6:
            request += f" {_fill(rng.choice(self.seeds.details), capital(parts.further))}"
        return request


def clauses(text: str) -> Clauses:
    """Take a caption apart; what it says of being a picture ("a photo of") is left out."""
    first, *others = _SENTENCE_END.split(text.strip())
    first = first.rstrip(" .!?")
    bare = _LEAD.sub("", first) or first
    head, _, rest = bare.partition(", ")
    if len(head.split()) < 2 or _LISTED.search(f", {rest}"):  # too little to ask for, or the first of a list
        head, rest = bare, ""
    return Clauses(_lowered(head), rest.strip(), " ".join(others).rstrip(" .!?"), not _FINITE.search(bare))


def _lowered(text: str) -> str:
    first = text.split(" ")[0]
    return text[:1].lower() + text[1:] if first.lower() in _LOWERED else text


def _sentence(text: str) -> list[str]:
    return [f"{text}."] if text else []


def _fill(template: str, words: str) -> str:
    return template.replace(MARK, words)
