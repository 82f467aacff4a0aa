"""Is what a picture shows what was asked for? Each part of a request alone, and all of it together."""

from __future__ import annotations

from dataclasses import dataclass

from vargpt_lightning.data.scenes.scene import Scene, Thing
from vargpt_lightning.evaluation.composition.reading import Reading, SeenThing, relation
from vargpt_lightning.utils.counted import counted

VERDICTS = "scene_verdicts.jsonl"
EDIT_VERDICTS = "edit_verdicts.jsonl"


@dataclass(frozen=True)
class SceneVerdict:
    """What is right in a picture.

    Args:
        shapes: as many things as asked for, each of the right shape.
        number: as many things as asked for.
        colours: all things of the right shapes have the right colours.
        placed: the two things of a pair stand as asked for; None where no relation was asked for.
        right: all that the request says is right.
        reason: what is wrong, in words; "" where nothing is.
    """

    shapes: bool
    number: bool
    colours: bool
    placed: bool | None
    right: bool
    reason: str


def judge_scene(scene: Scene, reading: Reading) -> SceneVerdict:
    """Compare what a picture shows with what was asked for."""
    wanted, seen = scene.things, list(reading.things)
    number = len(seen) == len(wanted)
    names = sorted(thing.shape for thing in wanted)
    shapes = number and sorted(str(thing.shape) for thing in seen) == names
    pairs = _paired(scene, seen) if shapes else []
    colours = shapes and all(thing.colour == found.colour for thing, found in pairs)
    placed = None
    if scene.relation is not None:
        placed = shapes and relation(pairs[0][1], pairs[1][1]) == scene.relation
    wrong = []
    if not number:
        wrong.append(f"{counted(len(seen), 'thing')}, {len(wanted)} asked for")
    elif not shapes:
        wrong.append(f"shows {', '.join(str(thing.shape or 'something') for thing in seen) or 'nothing'}")
    if shapes and scene.named_colours and not colours:
        wrong.append(f"colours {', '.join(str(found.colour or 'none') for _, found in pairs)}")
    if shapes and placed is False:
        wrong.append(f"the {pairs[0][0].shape} is {relation(pairs[0][1], pairs[1][1])} the {pairs[1][0].shape}")
    return SceneVerdict(shapes, number, colours, placed, not wrong, "; ".join(wrong))


def _paired(scene: Scene, seen: list[SeenThing]) -> list[tuple[Thing, SeenThing]]:
    """Each thing asked for with the one found of its shape; the shapes are known to agree."""
    left, found = list(seen), []
    for thing in scene.things:
        mate = next(each for each in left if each.shape == thing.shape)
        left.remove(mate)
        found.append((thing, mate))
    return found
