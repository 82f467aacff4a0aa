"""Requests to recolour the thing in a picture, with the picture before and after: exact pairs, made by program.

What is held out stays out: before and after, in pictures and words, training has seen cells of shape and colour alone,
and no picture of another split. Of held-out edits the colour that is asked for makes a held-out cell.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from vargpt_lightning.data.scenes.cells import HeldOut
from vargpt_lightning.data.scenes.records import SOURCE
from vargpt_lightning.data.scenes.scene import Scene, ScenePicture, Thing, draw_scene
from vargpt_lightning.data.scenes.shapes import COLOURS
from vargpt_lightning.data.scenes.wording import SCENE_ANSWERED, announced_phrase
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn

EDIT = "edit"
"""The kind of these records, and the key of their `meta` that says what the changed picture shows."""
ASKED = (
    "Make it {colour}.",
    "Make the {shape} {colour}.",
    "Please make it {colour}.",
    "Change the colour to {colour}.",
    "Turn the {shape} {colour}.",
    "Paint the {shape} {colour}.",
)


def edits(
    pictures: Sequence[ScenePicture], heldout: HeldOut, count: int, split: str, seed: int, taken: Collection[str] = ()
) -> Iterator[Record]:
    """Yield at most `count` records about the pictures of single things of a split.

    Args:
        pictures: of them the changed pictures are some, each once before one comes again.
        heldout: cells that no picture before a change shows.
        split: begins the ids.
        seed: of what is changed, and of the wording.
        taken: hashes of pictures that are not shown before a change either.
    """
    single = [picture for picture in pictures if picture.scene.kind == "colour"]
    rng = random.Random(f"{seed}:{split}:edits")
    known: set[tuple[str, str]] = set()
    rounds = -(-count // max(len(single), 1))
    for _ in range(rounds):
        for after in rng.sample(single, len(single)):
            before = _before(after, heldout, rng)
            pair = (before.sha, after.sha) if before else None
            if before is None or pair in known or before.sha in taken or len(known) == count:
                continue
            known.add((before.sha, after.sha))
            yield _record(before, after, f"{split}-{len(known) - 1:05d}-edit", rng)


def _before(after: ScenePicture, heldout: HeldOut, rng: random.Random) -> ScenePicture | None:
    """The same picture in another colour, of those that are not held out."""
    (thing,) = after.scene.things
    colours = [each for each in COLOURS if each != thing.colour and not heldout.colour(thing.shape, each)]
    if not colours:
        return None
    scene = replace(after.scene, things=(Thing(thing.shape, rng.choice(colours)),))
    return draw_scene(scene, after.layout, len(after.pixels_HWC))


def _record(before: ScenePicture, after: ScenePicture, name: str, rng: random.Random) -> Record:
    scene: Scene = after.scene
    (thing,) = scene.things
    asked = rng.choice(ASKED).format(shape=thing.shape, colour=thing.colour)
    answer = rng.choice(SCENE_ANSWERED).format(announced_phrase(scene, after.layout))
    turns = (
        Turn("user", (PicturePart(SEEN, before.sha, before.png), TextPart(asked))),
        Turn("assistant", (TextPart(answer), PicturePart(DRAWN, after.sha, after.png))),
    )
    meta = {"kind": EDIT, "cell": scene.cell, "from": before.scene.things[0].colour, EDIT: scene.described()}
    return Record(name, SOURCE, turns, meta)
