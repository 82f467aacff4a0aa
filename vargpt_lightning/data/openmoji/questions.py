"""Records written from what is known of OpenMoji's pictures: questions, facts of words, and requests to draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vargpt_lightning.data.openmoji.pictures import Emoji
from vargpt_lightning.data.openmoji.wording import (
    CATEGORY_ASKED,
    CHOICE_ASKED,
    COLOUR_ASKED,
    DRAW_ANSWERED,
    DRAW_ASKED,
    DRAW_ENDED,
    FACT_BOTH_ASKED,
    FACT_CATEGORY_ASKED,
    FACT_CHOICE_ASKED,
    FACT_LIKE_ASKED,
    FACT_SUBCATEGORY_ASKED,
    HAS_COLOUR_ASKED,
    IN_CATEGORY_ASKED,
    IN_SUBCATEGORY_ASKED,
    NAME_ASKED,
    SUBCATEGORY_ASKED,
    capital,
    kind_label,
    kind_phrase,
    phrase,
)
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Part, PicturePart, Record, TextPart, Turn

T = TypeVar("T")

SOURCE = "openmoji"
LETTERS = ("A", "B", "C", "D")
PRESENT_SHARE, ABSENT_SHARE = 0.05, 0.005  # between them "is there any red" has no fair answer
COLOURS_NOT_ASKED = ("black", "white")  # every picture has a black outline and a white ground
_TRIES = 50
MAIN_MARGIN = 1.25  # a main colour must cover this many times the second's area to be asked for


@dataclass(frozen=True)
class QuestionCounts:
    """How many questions of each kind are written about one picture."""

    category: int = 2
    subcategory: int = 2
    colour: int = 2
    yesno: int = 6
    choice: int = 4
    name: int = 2


HELDOUT_COUNTS = QuestionCounts(category=1, subcategory=1, colour=1, yesno=6, choice=4, name=0)


class QuestionWriter:
    """Writes the records about pictures of one split.

    `pool` are the pictures of that split: wrong names, other categories and absent colours are taken from it, so
    that no question can be answered by knowing which words go with which split. What is written about a picture
    follows from the seed and its code point alone, given the pool.
    """

    def __init__(self, pool: Sequence[Emoji], seed: int = 0) -> None:
        self.seed = seed
        self._names = [each.name for each in pool]
        self._categories = [each.category for each in pool]
        self._subcategories = [each.subcategory for each in pool]
        self._colours = [colour for each in pool for colour in askable_colours(each)]

    def questions(self, emoji: Emoji, counts: QuestionCounts) -> Iterator[Record]:
        """Yield the questions about one picture, each with its short answer."""
        yield from self._plain(emoji, "category", counts.category, CATEGORY_ASKED, emoji.category)
        yield from self._plain(
            emoji, "subcategory", counts.subcategory, SUBCATEGORY_ASKED, capital(kind_label(emoji.subcategory))
        )
        if _has_clear_main_colour(emoji):
            yield from self._plain(emoji, "colour", counts.colour, COLOUR_ASKED, capital(emoji.main_colour))
        yield from self._yes_no(emoji, counts.yesno)
        yield from self._choices(emoji, counts.choice)
        yield from self._plain(emoji, "name", counts.name, NAME_ASKED, capital(emoji.name))

    def drawings(self, emoji: Emoji, count: int) -> Iterator[Record]:
        """Yield requests to draw the picture, each answered by a sentence, the picture, and sometimes a sentence."""
        rng = self._rng(emoji, "draw")
        asked = _walk(rng, DRAW_ASKED, count)
        answered = _walk(rng, DRAW_ANSWERED, count)
        ended = _walk(rng, DRAW_ENDED, count)
        for number in range(count):
            words = phrase(emoji)
            parts: list[Part] = [TextPart(answered[number].format(words)), PicturePart(DRAWN, emoji.sha, emoji.png)]
            parts += [TextPart(ended[number])] if ended[number] else []
            turns = (Turn("user", (TextPart(asked[number].format(words)),)), Turn("assistant", tuple(parts)))
            yield Record(f"{emoji.codepoint}-draw-{number}", SOURCE, turns, _meta(emoji, "draw", emoji.name))

    def picture(self, emoji: Emoji) -> Record:
        """Return the picture alone, as an assistant's drawing."""
        turns = (Turn("assistant", (PicturePart(DRAWN, emoji.sha, emoji.png),)),)
        return Record(f"{emoji.codepoint}-picture-0", SOURCE, turns, _meta(emoji, "picture", ""))

    def _plain(self, emoji: Emoji, kind: str, count: int, asked: Sequence[str], answer: str) -> Iterator[Record]:
        for number, question in enumerate(_walk(self._rng(emoji, kind), asked, count)):
            yield _seen(emoji, kind, number, question, answer)

    def _yes_no(self, emoji: Emoji, count: int) -> Iterator[Record]:
        rng = self._rng(emoji, "yesno")
        first = rng.randrange(2)
        writers = (self._ask_category, self._ask_subcategory, self._ask_colour)
        for number in range(count):
            # each kind of question in turn, and each in turn with yes and with no
            wanted = (number % len(writers) + number // len(writers) + first) % 2 == 0
            about, question = writers[number % len(writers)](emoji, wanted, rng)
            if not question:
                about, question = self._ask_subcategory(emoji, wanted, rng)
            if question:
                yield _seen(emoji, "yesno", number, question, "Yes" if wanted else "No", about=about)

    def _ask_category(self, emoji: Emoji, wanted: bool, rng: random.Random) -> tuple[str, str]:
        other = _draw(rng, self._categories, lambda category: category != emoji.category)
        category = emoji.category if wanted else other
        question = rng.choice(IN_CATEGORY_ASKED)
        return "category", question.format(category) if category else ""

    def _ask_subcategory(self, emoji: Emoji, wanted: bool, rng: random.Random) -> tuple[str, str]:
        other = _draw(rng, self._subcategories, lambda subcategory: subcategory != emoji.subcategory)
        subcategory = emoji.subcategory if wanted else other
        question = rng.choice(IN_SUBCATEGORY_ASKED)
        return "subcategory", question.format(kind_phrase(subcategory)) if subcategory else ""

    def _ask_colour(self, emoji: Emoji, wanted: bool, rng: random.Random) -> tuple[str, str]:
        # colours that are missing here are taken as often as other pictures have them: the words give nothing away
        own = _draw(rng, askable_colours(emoji), lambda colour: True)
        other = _draw(rng, self._colours, lambda colour: emoji.colours.get(colour, 0.0) < ABSENT_SHARE)
        colour = own if wanted else other
        question = rng.choice(HAS_COLOUR_ASKED)
        return "colour", question.format(colour) if colour else ""

    def _choices(self, emoji: Emoji, count: int) -> Iterator[Record]:
        rng = self._rng(emoji, "choice")
        asked, words = _walk(rng, CHOICE_ASKED, count), _words(emoji.name)
        for number in range(count):
            names = _draw_several(rng, self._names, len(LETTERS) - 1, lambda name: not words & _words(name))
            if names is None:
                return
            names, letter = _in_order(names, emoji.name)
            question, answer = asked[number] + _options(names), _chosen(emoji, letter)
            yield _seen(emoji, "choice", number, question, answer, letter, options=names)

    def _rng(self, emoji: Emoji, kind: str) -> random.Random:
        return random.Random(f"{self.seed}:{emoji.codepoint}:{kind}")


def facts(emoji: Sequence[Emoji], seed: int = 0, choices: int = 40) -> Iterator[Record]:
    """Yield what a language model would know of the names, as text alone: their category and subcategory.

    And what it would know of lettered lists: `choices` times a name, which one option is the kind asked for.
    """
    kinds = {each.subcategory for each in emoji}
    elsewhere = {kind: [each.name for each in emoji if each.subcategory != kind] for kind in kinds}
    members = {kind: [phrase(each) for each in emoji if each.subcategory == kind] for kind in kinds}
    for each in emoji:
        words, label = phrase(each), capital(kind_label(each.subcategory))
        said = [(question, f"{label}, {each.category}") for question in FACT_BOTH_ASKED]
        said += [(question, each.category) for question in FACT_CATEGORY_ASKED]
        said += [(question, label) for question in FACT_SUBCATEGORY_ASKED]
        written = [(question.format(words), answer) for question, answer in said]
        rng = random.Random(f"{seed}:{each.codepoint}:fact")
        written += _fact_choices(each, elsewhere[each.subcategory], members[each.subcategory], rng, choices)
        for number, (question, answer) in enumerate(written):
            turns = (Turn("user", (TextPart(question),)), Turn("assistant", (TextPart(answer),)))
            yield Record(f"{each.codepoint}-fact-{number}", SOURCE, turns, _meta(each, "fact", answer))


def _fact_choices(
    emoji: Emoji, names_elsewhere: Sequence[str], alike: Sequence[str], rng: random.Random, count: int
) -> Iterator[tuple[str, str]]:
    """Questions by the kind itself and by one of its kind, in turn; the latter needs what a picture needs: its kind."""
    others = [name for name in alike if name != phrase(emoji)] or [kind_phrase(emoji.subcategory)]
    for number in range(count):
        names = _draw_several(rng, names_elsewhere, len(LETTERS) - 1, lambda name: name != emoji.name)
        if names is None:
            return
        names, letter = _in_order(names, emoji.name)
        if number % 4:
            question = rng.choice(FACT_LIKE_ASKED).format(rng.choice(others))
        else:
            question = rng.choice(FACT_CHOICE_ASKED).format(kind_phrase(emoji.subcategory))
        yield question + _options(names), _chosen(emoji, letter)


def _draw(rng: random.Random, items: Sequence[T], accept: Callable[[T], bool]) -> T | None:
    """Draw one of the acceptable items, each alike; None if there is none. Does not look at all unless it must."""
    for _ in range(_TRIES if items else 0):
        item = rng.choice(items)
        if accept(item):
            return item
    left = [item for item in items if accept(item)]
    return rng.choice(left) if left else None


def _draw_several(rng: random.Random, items: Sequence[T], count: int, accept: Callable[[T], bool]) -> list[T] | None:
    """Draw that many different acceptable items; None if there are not enough."""
    drawn: list[T] = []
    while len(drawn) < count:
        item = _draw(rng, items, lambda item: accept(item) and item not in drawn)
        if item is None:
            return None
        drawn.append(item)
    return drawn


def _words(name: str) -> set[str]:
    return set(name.lower().split())


def askable_colours(emoji: Emoji) -> list[str]:
    """The colours that cover at least a twentieth of the shape; black and white are not asked for."""
    return [c for c, share in emoji.colours.items() if share >= PRESENT_SHARE and c not in COLOURS_NOT_ASKED]


def _has_clear_main_colour(emoji: Emoji) -> bool:
    shares = list(emoji.colours.values())
    return len(shares) == 1 or (len(shares) > 1 and shares[0] >= MAIN_MARGIN * shares[1])


def _in_order(wrong: Sequence[str], right: str) -> tuple[list[str], str]:
    """All names by the alphabet, and the letter of the right one.

    The order says nothing about which name is right, and a name by itself says something about its letter: that is
    the first step to finding the letter, which a small model hardly takes when names stand at random.
    """
    names = sorted([*wrong, right], key=str.lower)
    return names, LETTERS[names.index(right)]


def _options(names: Sequence[str]) -> str:
    return " " + ", ".join(_option(name, letter) for letter, name in zip(LETTERS, names, strict=True))


def _option(name: str, letter: str) -> str:
    return f"{name} ({letter})"


def _chosen(emoji: Emoji, letter: str) -> str:
    # Kind, name, letter: each step needs one look, at the picture, at the list, at the name. A small model that must
    # say the letter at once learns none of the three.
    return f"{capital(kind_label(emoji.subcategory))}: {_option(emoji.name, letter)}"


def _walk(rng: random.Random, items: Sequence[str], count: int) -> list[str]:
    """`count` items, each as often as any other, starting and following in random order."""
    result: list[str] = []
    while len(result) < count:
        result += rng.sample(items, len(items))
    return result[:count]


def _meta(emoji: Emoji, kind: str, answer: str) -> dict[str, object]:
    return {
        "kind": kind,
        "codepoint": emoji.codepoint,
        "name": emoji.name,
        "category": emoji.category,
        "subcategory": emoji.subcategory,
        "picture_sha": emoji.sha,
        "answer": answer,
    }


def _seen(
    emoji: Emoji, kind: str, number: int, question: str, answer: str, key: str | None = None, **more: object
) -> Record:
    """A question about a picture; `key` is what an answer is compared with, if that is not the whole answer."""
    user = Turn("user", (PicturePart(SEEN, emoji.sha, emoji.png), TextPart(question)))
    meta: Mapping[str, object] = _meta(emoji, kind, key or answer) | more
    return Record(
        f"{emoji.codepoint}-{kind}-{number}", SOURCE, (user, Turn("assistant", (TextPart(answer),))), dict(meta)
    )
