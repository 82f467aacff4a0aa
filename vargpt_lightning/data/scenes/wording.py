"""How scenes are asked for and asked about."""

from __future__ import annotations

from dataclasses import replace

from vargpt_lightning.data.openmoji.wording import capital, with_article
from vargpt_lightning.data.scenes.layouts import Layout
from vargpt_lightning.data.scenes.scene import INVERSE, Relation, Scene, Thing
from vargpt_lightning.data.scenes.shapes import BY_NAME

NUMBERS = ("zero", "one", "two", "three", "four")
# The ways to say a relation; the first is the one that cells are named by.
SAID: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
# where the first and the second thing of a pair are
SIDES = {"left of": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}
SCENE_ANSWERED = ("Here you have {}:", "This shows {}:", "Sure, {}:", "Of course, {}:")
PLAN_ASKED = ("How would you draw {}?", "What would a picture of {} show?", "Describe a picture of {}.")
COLOUR_ASKED = ("What colour is the {}?", "Which colour does the {} have?", "Tell me the colour of the {}.")
COUNT_ASKED = ("How many {} are there?", "How many {} do you see?", "Count the {}.")
RELATION_ASKED = ("What is {} the {}?", "What do you see {} the {}?")
PRESENT_ASKED = ("Is there {} in the picture?", "Can you see {}?", "Does the picture show {}?")
WHAT_ASKED = ("What is this?", "What is shown in the picture?", "Name what you see.")


def own_question(scene: Scene) -> tuple[str, str]:
    """Return the question that asks a drawing for what a request named last, with its answer.

    The colour of a coloured thing, how many there are of a count, what stands where in a pair.
    """
    first = scene.things[0]
    if scene.kind == "colour":
        return COLOUR_ASKED[0].format(first.shape), first.colour.capitalize()
    if scene.relation is None:
        return COUNT_ASKED[0].format(BY_NAME[first.shape].plural), NUMBERS[len(scene.things)].capitalize()
    return RELATION_ASKED[0].format(scene.relation, scene.things[1].shape), capital(with_article(first.shape))


def thing_phrase(thing: Thing, named_colour: bool) -> str:
    """Return a thing as it stands in a sentence: "a green apple", or "an apple" where its colour is not said."""
    return with_article(f"{thing.colour} {thing.shape}" if named_colour else thing.shape)


def scene_phrase(scene: Scene, way: int = 0, turned: bool = False) -> str:
    """Return what a request asks for: "two kites", "a red heart left of a green apple".

    Args:
        way: which of the wordings of a relation, from 0; other scenes have one.
        turned: name the second thing of a pair first, with the inverse relation.
    """
    first = scene.things[0]
    if scene.kind == "count" and len(scene.things) > 1:
        colour = f"{first.colour} " if scene.named_colours else ""
        return f"{NUMBERS[len(scene.things)]} {colour}{BY_NAME[first.shape].plural}"
    if scene.relation is None:
        return thing_phrase(first, scene.named_colours)
    one, other = scene.things
    relation: Relation = scene.relation
    if turned:
        one, other, relation = other, one, INVERSE[relation]
    ways = SAID[relation]
    words = ways[way % len(ways)]
    return f"{thing_phrase(one, scene.named_colours)} {words} {thing_phrase(other, scene.named_colours)}"


def placed_phrase(scene: Scene, layout: Layout, named_colours: bool = True, turned: bool = False) -> str:
    """Return what a picture shows, with how and where: "two green apples side by side at the top".

    Args:
        scene: what it shows.
        layout: how it stands.
        named_colours: say the colours.
        turned: name the second thing of a pair first.
    """
    if scene.relation is None:
        words = scene_phrase(replace(scene, named_colours=named_colours))
        return " ".join(part for part in (words, layout.arrangement, layout.place) if part)
    placed = [
        f"{thing_phrase(thing, named_colours)} {side}"
        for thing, side in zip(scene.things, SIDES[scene.relation], strict=True)
    ]
    one, other = placed[::-1] if turned else placed
    return f"{one} and {other}, {layout.place}"


def announced_phrase(scene: Scene, layout: Layout) -> str:
    """Return what an answer says that it draws: "a green apple, three times, with one above the others".

    Every kind of scene names a thing in the same words, with its colour, and the left or upper one of a pair first.
    """
    if scene.relation is not None:
        return placed_phrase(scene, layout)
    times = f"{NUMBERS[len(scene.things)]} times" if len(scene.things) > 1 else ""
    where = " ".join(part for part in (layout.arrangement, layout.place) if part)
    return ", ".join(part for part in (thing_phrase(scene.things[0], True), times, where) if part)
