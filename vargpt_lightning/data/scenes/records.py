"""Records written about scenes: requests to draw them, questions about them, the pictures alone, and conversations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from vargpt_lightning.data.openmoji.wording import DRAW_ASKED, capital, with_article
from vargpt_lightning.data.scenes.scene import INVERSE, Scene, ScenePicture, draw_scene, layouts
from vargpt_lightning.data.scenes.shapes import BY_NAME, SHAPES, Shape
from vargpt_lightning.data.scenes.wording import (
    COLOUR_ASKED,
    COUNT_ASKED,
    NUMBERS,
    PLAN_ASKED,
    PRESENT_ASKED,
    RELATION_ASKED,
    SAID,
    SCENE_ANSWERED,
    WHAT_ASKED,
    announced_phrase,
    placed_phrase,
    scene_phrase,
)
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn

SOURCE = "scenes"
PLACED_EVERY = 5  # requests, one says where things are to be
TURNS = (2, 4)  # of a conversation: the user's


class SceneWriter:
    """Writes the records about the scenes of one split, each picture made once; what is written follows the seed.

    Args:
        pictures: the split's pictures, none of them twice.
        split: name that the ids begin with.
        seed: of the wording.
        shapes: what questions may ask for.
    """

    def __init__(
        self, pictures: Sequence[ScenePicture], split: str, seed: int, shapes: Sequence[Shape] = SHAPES
    ) -> None:
        self.pictures, self.split, self.seed = pictures, split, seed
        self._names = [shape.name for shape in shapes]

    def alone(self) -> Iterator[Record]:
        """Yield each picture as an assistant's drawing, without words."""
        for number, picture in enumerate(self.pictures):
            turn = Turn("assistant", (PicturePart(DRAWN, picture.sha, picture.png),))
            yield Record(self._id(number, "picture"), SOURCE, (turn,), _meta(picture.scene, "picture", ""))

    def drawings(self) -> Iterator[Record]:
        """Yield a request for each picture."""
        for number, picture in enumerate(self.pictures):
            asked, answer = _request(picture, self._rng(number, "draw"))
            turns = (Turn("user", (asked,)), Turn("assistant", answer))
            yield Record(self._id(number, "draw"), SOURCE, turns, _meta(picture.scene, "draw", asked.text))

    def plans(self) -> Iterator[Record]:
        """Yield for each picture a question, without a picture, how it would be drawn: what an answer announces."""
        for number, picture in enumerate(self.pictures):
            rng = self._rng(number, "plan")
            question = rng.choice(PLAN_ASKED).format(_requested(picture, rng))
            answer = capital(announced_phrase(picture.scene, picture.layout)) + "."
            turns = (Turn("user", (TextPart(question),)), Turn("assistant", (TextPart(answer),)))
            yield Record(self._id(number, "plan"), SOURCE, turns, _meta(picture.scene, "plan", answer))

    def questions(self, every: int = 1) -> Iterator[Record]:
        """Yield the questions about one of `every` pictures, by chance, with their short answers."""
        for number, picture in enumerate(self.pictures):
            rng = self._rng(number, "ask")
            for kind, question, answer in [] if rng.randrange(every) else _questions(picture.scene, self._names, rng):
                asked = (PicturePart(SEEN, picture.sha, picture.png), TextPart(question))
                turns = (Turn("user", asked), Turn("assistant", (TextPart(answer),)))
                yield Record(
                    self._id(number, f"ask-{kind}"), SOURCE, turns, _meta(picture.scene, f"scene_{kind}", answer)
                )

    def conversations(self, count: int, turns_each: tuple[int, int] = TURNS) -> Iterator[Record]:
        """Yield conversations: requests to draw and questions about the last drawing, in mixed order.

        Args:
            count: how many.
            turns_each: the fewest and the most turns of the user.
        """
        rng = random.Random(f"{self.seed}:{self.split}:talk")
        for number in range(count):
            turns: list[Turn] = []
            last: ScenePicture | None = None
            for _ in range(rng.randint(*turns_each)):
                if last is None or rng.random() < 0.5:
                    last = rng.choice(self.pictures)
                    asked, answer = _request(last, rng)
                    turns += [Turn("user", (asked,)), Turn("assistant", answer)]
                else:
                    _, question, reply = rng.choice(list(_questions(last.scene, self._names, rng)))
                    turns += [Turn("user", (TextPart(question),)), Turn("assistant", (TextPart(reply),))]
            meta = {"kind": "conversation"}
            yield Record(f"{self.split}-talk-{number}", SOURCE, tuple(turns), meta)

    def _id(self, number: int, what: str) -> str:
        return f"{self.split}-{number:05d}-{what}"

    def _rng(self, number: int, what: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.split}:{number}:{what}")


def scene_pictures(scenes: Iterable[Scene], size: int, seed: int, taken: set[str]) -> list[ScenePicture]:
    """Return a picture for each scene, all different from each other and from those whose hashes are `taken`.

    A scene of which there are no more different pictures is left out.
    """
    pictures = []
    for number, scene in enumerate(scenes):
        every = layouts(scene)
        shuffled = random.Random(f"{seed}:{number}:{scene.cell}").sample(every, len(every))
        drawn = (draw_scene(scene, layout, size) for layout in shuffled)
        picture = next((each for each in drawn if each.sha not in taken), None)
        if picture is not None:
            taken.add(picture.sha)
            pictures.append(picture)
    return pictures


def _request(picture: ScenePicture, rng: random.Random) -> tuple[TextPart, tuple[TextPart | PicturePart, ...]]:
    """A request and its answer; the answer says what is drawn and where, and the request may say where."""
    words = _requested(picture, rng)
    answer = rng.choice(SCENE_ANSWERED).format(announced_phrase(picture.scene, picture.layout))
    asked = TextPart(rng.choice(DRAW_ASKED).format(words))
    return asked, (TextPart(answer), PicturePart(DRAWN, picture.sha, picture.png))


def _requested(picture: ScenePicture, rng: random.Random) -> str:
    """What a request names, in either order, now and then with its place."""
    turned = rng.random() < 0.5
    if rng.randrange(PLACED_EVERY):
        return scene_phrase(picture.scene, rng.randrange(2), turned)
    return placed_phrase(picture.scene, picture.layout, picture.scene.named_colours, turned)


def _questions(scene: Scene, names: Sequence[str], rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Kind, question and answer of each question about a scene; `names` may be asked for in vain."""
    first = scene.things[0]
    if scene.kind == "colour":
        yield "colour", rng.choice(COLOUR_ASKED).format(first.shape), first.colour.capitalize()
        yield "what", rng.choice(WHAT_ASKED), capital(with_article(first.shape))
    elif scene.kind == "count":
        asked = rng.choice(COUNT_ASKED).format(BY_NAME[first.shape].plural)
        yield "count", asked, NUMBERS[len(scene.things)].capitalize()
    elif scene.relation is not None:
        # "What is left of the kite?": the thing that stands left of it
        answer, other = scene.things if rng.random() < 0.5 else scene.things[::-1]
        relation = scene.relation if answer is first else INVERSE[scene.relation]
        asked = rng.choice(RELATION_ASKED).format(rng.choice(SAID[relation]), other.shape)
        yield "relation", asked, capital(with_article(answer.shape))
    inside = {thing.shape for thing in scene.things}
    present = rng.random() < 0.5
    shape = rng.choice(sorted(inside)) if present else rng.choice([name for name in names if name not in inside])
    yield "present", rng.choice(PRESENT_ASKED).format(with_article(shape)), "Yes" if present else "No"


def _meta(scene: Scene, kind: str, answer: str) -> dict[str, object]:
    return {
        "kind": kind,
        "name": scene_phrase(scene),
        "category": "scene",
        "subcategory": scene.kind,
        "cell": scene.cell,
        "scene": scene.described(),
        "answer": answer,
    }
