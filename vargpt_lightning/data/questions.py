"""Records written from what is known of OpenMoji's pictures: questions, facts of words, and requests to draw."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vargpt_lightning.data.openmoji import Emoji
from vargpt_lightning.data.records import DRAWN, SEEN, Part, PicturePart, Record, TextPart, Turn

SOURCE = "openmoji"
LETTERS = ("A", "B", "C", "D")
PRESENT_SHARE, ABSENT_SHARE = 0.05, 0.005  # between them "is there any red" has no fair answer
COLOURS_NOT_ASKED = ("black", "white")  # every picture has a black outline and a white ground
MAIN_MARGIN = 1.25  # a main colour must cover this many times the second's area to be asked for

CATEGORY_ASKED = (
    "Which category does this belong to?",
    "What category is this picture in?",
    "In which category would you file this?",
)
SUBCATEGORY_ASKED = (
    "What kind of thing is this?",
    "What type of thing does the picture show?",
    "Which subcategory is this?",
)
COLOUR_ASKED = (
    "What is the main colour?",
    "What colour is this mostly?",
    "Which colour covers most of it?",
)
NAME_ASKED = ("What is this?", "What is shown in the picture?", "Name what you see.")
CHOICE_ASKED = ("Which of these is it?", "What does the picture show?", "Choose the right name.")
IN_CATEGORY_ASKED = ("Does this belong to {}?", "Is this in the category {}?")
IN_SUBCATEGORY_ASKED = ("Is this {}?", "Does the picture show {}?")
HAS_COLOUR_ASKED = ("Is there any {} in it?", "Can you see {} in the picture?")
FACT_BOTH_ASKED = ("What is {}?", "Tell me about {}.", "Explain what {} is.")
FACT_CATEGORY_ASKED = ("Which category does {} belong to?", "In which category would you file {}?")
FACT_SUBCATEGORY_ASKED = ("What kind of thing is {}?", "What type of thing is {}?")
FACT_CHOICE_ASKED = ("Which of these is {}?", "Choose {}.")
DRAW_ASKED = (
    "Please draw {}.",
    "Can you draw {}?",
    "Show me a picture of {}.",
    "I would like to see {}.",
    "Draw {} for me.",
    "Could you paint {}, please?",
    "Make an image of {}.",
    "Generate a picture of {}.",
)
DRAW_ANSWERED = ("Here is {}:", "Sure, here is {}:", "This is {}:", "Of course. Here is {}:")
DRAW_ENDED = ("", "", "I hope you like it.")

# last words of names that take no article, beside plurals that end in s
_UNCOUNTED = """
    bacon bread broccoli butter coral dna falafel flatbread food garlic ice liquid luggage milk oden popcorn rice sake
    salt soap spaghetti sushi thread wood yarn children men people women breast-feeding cooking lacrosse
"""
_NO_ARTICLE = frozenset(_UNCOUNTED.split())
_NOT_PLURAL_ENDINGS = ("ss", "us", "is", "os")
_VOWELS = ("a", "e", "i", "o", "um", "up", "hour", "x-ray")
_NOT_VOWELS = ("one", "eu", "ewe", "once")
# what follows one of these does not decide: "glass of milk" is a glass
_HEAD_ENDS = (" of ", " with ", " on ", " in ", " without ", " from ")


@dataclass(frozen=True)
class QuestionCounts:
    """How many questions of each kind are written about one picture."""

    category: int = 2
    subcategory: int = 2
    colour: int = 2
    yesno: int = 6
    choice: int = 8
    name: int = 2


HELDOUT_COUNTS = QuestionCounts(category=1, subcategory=1, colour=1, yesno=6, choice=4, name=0)


def phrase(emoji: Emoji) -> str:
    """Return the name as it stands in a sentence: "a shamrock", "grapes", "the flag of Norway"."""
    if emoji.subcategory == "country-flag":
        return f"the flag of {emoji.name}"
    head = emoji.name
    for ending in _HEAD_ENDS:
        head = head.split(ending)[0]
    last = head.split()[-1].lower()
    plural = last.endswith("s") and not last.endswith(_NOT_PLURAL_ENDINGS)
    if plural or last in _NO_ARTICLE or emoji.category in ("Flags", "Symbols"):
        return emoji.name
    return _with_article(emoji.name)


def kind_label(subcategory: str) -> str:
    """Return a subcategory in words: "animal-mammal" is "mammal", "plant-other" is "other plant"."""
    group, _, rest = subcategory.partition("-")
    if group not in ("animal", "plant", "food"):
        return subcategory.replace("-", " ")
    rest = rest.replace("-", " ")
    if rest in ("amphibian", "bird", "bug", "mammal", "reptile", "flower", "fruit", "vegetable"):
        return rest
    return f"{'Asian' if rest == 'asian' else rest} {group}"


def _with_article(words: str) -> str:
    start = words.lower()
    return f"{'an' if start.startswith(_VOWELS) and not start.startswith(_NOT_VOWELS) else 'a'} {words}"


def _kind_phrase(subcategory: str) -> str:
    label = kind_label(subcategory)
    if label.endswith(" food") or label in ("fruit", "dishware"):
        return label
    return f"an{label}" if label.startswith("other ") else _with_article(label)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class QuestionWriter:
    """Writes the records about pictures of one split.

    `pool` are the pictures of that split: wrong names, other categories and absent colours are taken from it, so
    that no question can be answered by knowing which words go with which split. What is written about a picture
    follows from the seed and its code point alone, given the pool.
    """

    def __init__(self, pool: Sequence[Emoji], seed: int = 0) -> None:
        self.pool = list(pool)
        self.seed = seed

    def questions(self, emoji: Emoji, counts: QuestionCounts) -> Iterator[Record]:
        """Yield the questions about one picture, each with its short answer."""
        yield from self._plain(emoji, "category", counts.category, CATEGORY_ASKED, emoji.category)
        yield from self._plain(
            emoji, "subcategory", counts.subcategory, SUBCATEGORY_ASKED, _capital(kind_label(emoji.subcategory))
        )
        if _has_clear_main_colour(emoji):
            yield from self._plain(emoji, "colour", counts.colour, COLOUR_ASKED, _capital(emoji.main_colour))
        yield from self._yes_no(emoji, counts.yesno)
        yield from self._choices(emoji, counts.choice)
        yield from self._plain(emoji, "name", counts.name, NAME_ASKED, _capital(emoji.name))

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
        other = [each.category for each in self.pool if each.category != emoji.category]
        category = emoji.category if wanted else rng.choice(other) if other else ""
        return "category", rng.choice(IN_CATEGORY_ASKED).format(category) if category else ""

    def _ask_subcategory(self, emoji: Emoji, wanted: bool, rng: random.Random) -> tuple[str, str]:
        other = [each.subcategory for each in self.pool if each.subcategory != emoji.subcategory]
        subcategory = emoji.subcategory if wanted else rng.choice(other) if other else ""
        question = rng.choice(IN_SUBCATEGORY_ASKED)
        return "subcategory", question.format(_kind_phrase(subcategory)) if subcategory else ""

    def _ask_colour(self, emoji: Emoji, wanted: bool, rng: random.Random) -> tuple[str, str]:
        # colours that are missing here are taken as often as other pictures have them: the words give nothing away
        other = [c for each in self.pool for c in present_colours(each) if emoji.colours.get(c, 0.0) < ABSENT_SHARE]
        choices = present_colours(emoji) if wanted else other
        choices = [colour for colour in choices if colour not in COLOURS_NOT_ASKED]
        question = rng.choice(HAS_COLOUR_ASKED)
        return "colour", question.format(rng.choice(choices)) if choices else ""

    def _choices(self, emoji: Emoji, count: int) -> Iterator[Record]:
        rng = self._rng(emoji, "choice")
        words = set(emoji.name.lower().split())
        others = [each.name for each in self.pool if not words & set(each.name.lower().split())]
        if len(others) < len(LETTERS) - 1:
            return
        asked, start = _walk(rng, CHOICE_ASKED, count), rng.randrange(len(LETTERS))
        for number in range(count):
            place = (start + number) % len(LETTERS)
            names = rng.sample(others, len(LETTERS) - 1)
            names.insert(place, emoji.name)
            question = asked[number] + _options(names, inline=bool(rng.randrange(2)))
            yield _seen(emoji, "choice", number, question, LETTERS[place], options=names)

    def _rng(self, emoji: Emoji, kind: str) -> random.Random:
        return random.Random(f"{self.seed}:{emoji.codepoint}:{kind}")


def facts(emoji: Sequence[Emoji], seed: int = 0, choices: int = 4) -> Iterator[Record]:
    """Yield what a language model would know of the names, as text alone: their category and subcategory."""
    for each in emoji:
        words, label = phrase(each), _capital(kind_label(each.subcategory))
        said = [(question, f"{label}, {each.category}") for question in FACT_BOTH_ASKED]
        said += [(question, each.category) for question in FACT_CATEGORY_ASKED]
        said += [(question, label) for question in FACT_SUBCATEGORY_ASKED]
        written = [(question.format(words), answer) for question, answer in said]
        written += _fact_choices(each, emoji, random.Random(f"{seed}:{each.codepoint}:fact"), choices)
        for number, (question, answer) in enumerate(written):
            turns = (Turn("user", (TextPart(question),)), Turn("assistant", (TextPart(answer),)))
            yield Record(f"{each.codepoint}-fact-{number}", SOURCE, turns, _meta(each, "fact", answer))


def _fact_choices(emoji: Emoji, pool: Sequence[Emoji], rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    others = [each.name for each in pool if each.subcategory != emoji.subcategory]
    start = rng.randrange(len(LETTERS))
    for number in range(count if len(others) >= len(LETTERS) - 1 else 0):
        place = (start + number) % len(LETTERS)
        names = rng.sample(others, len(LETTERS) - 1)
        names.insert(place, emoji.name)
        question = rng.choice(FACT_CHOICE_ASKED).format(_kind_phrase(emoji.subcategory))
        yield question + _options(names, inline=bool(rng.randrange(2))), LETTERS[place]


def present_colours(emoji: Emoji) -> list[str]:
    """The colours that cover at least a twentieth of the shape."""
    return [colour for colour, share in emoji.colours.items() if share >= PRESENT_SHARE]


def _has_clear_main_colour(emoji: Emoji) -> bool:
    shares = list(emoji.colours.values())
    return len(shares) == 1 or (len(shares) > 1 and shares[0] >= MAIN_MARGIN * shares[1])


def _options(names: Sequence[str], inline: bool) -> str:
    pairs = [f"{letter}. {name}" for letter, name in zip(LETTERS, names, strict=True)]
    return " " + ", ".join(pairs) if inline else "\n" + "\n".join(pairs)


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


def _seen(emoji: Emoji, kind: str, number: int, question: str, answer: str, **more: object) -> Record:
    user = Turn("user", (PicturePart(SEEN, emoji.sha, emoji.png), TextPart(question)))
    meta: Mapping[str, object] = _meta(emoji, kind, answer) | more
    return Record(
        f"{emoji.codepoint}-{kind}-{number}", SOURCE, (user, Turn("assistant", (TextPart(answer),))), dict(meta)
    )
