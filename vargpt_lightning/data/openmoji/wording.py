"""How questions, requests and answers about OpenMoji's pictures are worded."""

from __future__ import annotations

from vargpt_lightning.data.openmoji.pictures import Emoji

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
FACT_LIKE_ASKED = ("Which of these is like {}?", "Which of these goes with {}?")
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
# What is drawn is named by the request alone: an answer that says it again would be what the drawing goes by.
DRAW_ANSWERED = ("Here it is:", "Sure, here you are:", "Here is your picture:", "Of course, here it is:")
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
    return with_article(emoji.name)


def kind_label(subcategory: str) -> str:
    """Return a subcategory in words: "animal-mammal" is "mammal", "plant-other" is "other plant"."""
    group, _, rest = subcategory.partition("-")
    if group not in ("animal", "plant", "food"):
        return subcategory.replace("-", " ")
    rest = rest.replace("-", " ")
    if rest in ("amphibian", "bird", "bug", "mammal", "reptile", "flower", "fruit", "vegetable"):
        return rest
    return f"{'Asian' if rest == 'asian' else rest} {group}"


def capital(text: str) -> str:
    """Return a text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def with_article(words: str) -> str:
    """Return words with the indefinite article that they take: "an apple"."""
    start = words.lower()
    return f"{'an' if start.startswith(_VOWELS) and not start.startswith(_NOT_VOWELS) else 'a'} {words}"


def kind_phrase(subcategory: str) -> str:
    """Return a subcategory as it stands in a sentence: "a mammal", "fruit", "another plant"."""
    label = kind_label(subcategory)
    if label.endswith(" food") or label in ("fruit", "dishware"):
        return label
    return f"an{label}" if label.startswith("other ") else with_article(label)
