"""Figures of composition: how often each kind of request is drawn rightly.

Categories and their mean are GenEval's (arXiv 2310.11513): single object, two objects, counting, colours, position,
colour binding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vargpt_lightning.data.scenes.scene import Scene
from vargpt_lightning.evaluation.composition.verdicts import SceneVerdict
from vargpt_lightning.utils.heldout import wilson

Part = Callable[[Scene, SceneVerdict], bool | None]
"""Whether a drawing is right in one respect; None where its request does not ask for it."""


def _of(kind: str, right: Callable[[SceneVerdict], bool]) -> Part:
    return lambda scene, verdict: right(verdict) if scene.kind == kind else None


@dataclass(frozen=True)
class Skill:
    """One figure: its name for people, and what counts."""

    title: str
    right: Part


# The skills that the headline speaks of.
SKILLS: dict[str, Skill] = {
    "colour": Skill("shape and colour", _of("colour", lambda v: v.shapes and v.colours)),
    "count": Skill("thing and count", _of("count", lambda v: v.shapes)),
    "pair": Skill("both names and the relation", _of("pair", lambda v: v.shapes and bool(v.placed))),
}
# Single skills and GenEval's categories.
PARTS: dict[str, Skill] = {
    "single_object": Skill("single object", _of("colour", lambda v: v.shapes)),
    "two_object": Skill("two objects", _of("pair", lambda v: v.shapes)),
    "counting": Skill("counting", _of("count", lambda v: v.right)),
    "colors": Skill("colours", _of("colour", lambda v: v.right)),
    "position": Skill("position", lambda s, v: v.right if s.kind == "pair" and not s.named_colours else None),
    "color_attr": Skill("colour binding", lambda s, v: v.right if s.kind == "pair" and s.named_colours else None),
}


def rate(hits: Sequence[bool]) -> dict[str, Any]:
    """Return n, how many are right, their share and its 95 % interval (Wilson)."""
    low, high = wilson(sum(hits), len(hits))
    share = sum(hits) / len(hits) if hits else None
    return {"n": len(hits), "right": sum(hits), "rate": share, "low": low, "high": high}


def skill_rates(judged: Sequence[tuple[Scene, SceneVerdict]]) -> dict[str, Any]:
    """Return the rates of `SKILLS` and `PARTS` over judged pictures, and the mean of GenEval's categories as "geneval".

    Skills that no request asks for are left out; "geneval" is there if every category is. "all" is the rate of pictures
    that show all that their requests say.
    """
    found: dict[str, Any] = {"all": rate([verdict.right for _, verdict in judged])}
    for name, skill in (SKILLS | PARTS).items():
        hits = [hit for scene, verdict in judged if (hit := skill.right(scene, verdict)) is not None]
        if hits:
            found[name] = rate(hits)
    if PARTS.keys() <= found.keys():
        found["geneval"] = sum(found[name]["rate"] for name in PARTS) / len(PARTS)
    return found


def geneval_rows(
    rows: Sequence[Mapping[str, Any]], judged: Sequence[tuple[Scene, SceneVerdict]]
) -> list[dict[str, Any]]:
    """Return rows in GenEval's result format: filename, tag, prompt, correct, reason; metadata, details as JSON text.

    Args:
        rows: drawings with `id`, `prompt` and `files`.
        judged: each row's scene and verdict, in the same order.
    """
    found = []
    for row, (scene, verdict) in zip(rows, judged, strict=True):
        for tag, skill in PARTS.items():
            correct = skill.right(scene, verdict)
            if correct is not None:
                meta = {"tag": tag, "prompt": row["prompt"], "include": _include(scene), "scene": asdict(scene)}
                file = (row.get("files") or [""])[0]
                found.append(
                    {"filename": file, "tag": tag, "prompt": row["prompt"], "correct": bool(correct)}
                    | {"reason": verdict.reason, "metadata": json.dumps(meta), "details": "{}"}
                )
    return found


def _include(scene: Scene) -> list[dict[str, Any]]:
    things: dict[tuple[str, str], int] = {}
    for thing in scene.things:
        things[thing.shape, thing.colour] = things.get((thing.shape, thing.colour), 0) + 1
    return [
        {"class": shape, "count": count} | ({"color": colour} if scene.named_colours else {})
        for (shape, colour), count in things.items()
    ]
