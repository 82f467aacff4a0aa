"""A number for how much of what a request says a picture shows: the judge of scenes as a scorer."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from vargpt_lightning.data.scenes.asked import scene_asked
from vargpt_lightning.data.scenes.scene import Scene
from vargpt_lightning.evaluation.composition.reading import NameShapes, Reading, read_pictures, relation
from vargpt_lightning.evaluation.composition.shape_names import shape_names


def scene_scores(
    pictures: Sequence[Image.Image], requests: Sequence[str], name_shapes: NameShapes | None = None
) -> list[float]:
    """Return for each picture the share, 0 to 1, of what its request says that it shows.

    A request that asks for no scene scores 0 whatever is drawn.
    """
    readings = read_pictures(pictures, name_shapes or shape_names())
    scenes = [scene_asked(request) for request in requests]
    return [
        share_right(scene, reading) if scene is not None else 0.0
        for scene, reading in zip(scenes, readings, strict=True)
    ]


def share_right(scene: Scene, reading: Reading) -> float:
    """Return how much of a scene a picture shows: 1 exactly where `verdicts.judge_scene` finds it right.

    Counted are the number of things, each thing's shape, its colour where the request says it, and the relation of a
    pair, all alike; what is of another shape has no right colour and stands nowhere.
    """
    left, mates = list(reading.things), []
    for thing in scene.things:
        same = [each for each in left if each.shape == thing.shape]
        # the one of the right colour first, so that the order of things does not count
        mate = next((each for each in same if each.colour == thing.colour), same[0] if same else None)
        mates.append(mate)
        if mate is not None:
            left.remove(mate)
    right = [len(reading.things) == len(scene.things), *(mate is not None for mate in mates)]
    if scene.named_colours:
        pairs = zip(scene.things, mates, strict=True)
        right += [mate is not None and mate.colour == thing.colour for thing, mate in pairs]
    if scene.relation is not None:
        one, other = mates
        right.append(one is not None and other is not None and relation(one, other) == scene.relation)
    return sum(right) / len(right)
