"""The composition section of an evaluation: drawings of scenes judged, with the judge's own ceiling beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.data.scenes.scene import Scene, scene_of
from vargpt_lightning.evaluation.base.exact_match import is_right
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.composition.copies import copies
from vargpt_lightning.evaluation.composition.figures import geneval_rows, rate, skill_rates
from vargpt_lightning.evaluation.composition.reading import NameShapes, Reading, read_pictures
from vargpt_lightning.evaluation.composition.shape_names import shape_names
from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
from vargpt_lightning.evaluation.composition.verdicts import VERDICTS, SceneVerdict, judge_scene
from vargpt_lightning.utils.files import write_jsonl

Row = Mapping[str, Any]
SPLITS = {"val": "seen", "test": "unseen"}
"""What a split of scenes is: of combinations that were trained, in new pictures, or of held-out ones."""
GENEVAL = "geneval.jsonl"


def is_scene(row: Row) -> bool:
    """Whether a row of pictures.jsonl is a scene put together by program."""
    return bool(row.get("scene"))


def composition(
    out: Path,
    drawings: Sequence[Row],
    pictures: Sequence[Row],
    reconstructions: Sequence[Row] = (),
    asked_back: Sequence[Row] = (),
    name_shapes: NameShapes | None = None,
) -> dict[str, Any]:
    """Judge the drawings of scenes and write `scene_verdicts.jsonl` and `geneval.jsonl`; {} where there is none.

    Args:
        out: the evaluation's folder.
        drawings: requests with `split`, `picture` (the real one's id) and `files`; one without a picture is wrong.
        pictures: the real pictures, those with a `scene` among them.
        reconstructions: real pictures after the image tokenizer.
        asked_back: answers to questions about the model's own drawings.
        name_shapes: names of things cut out of pictures; None takes EfficientNet-Lite0's.

    Returns:
        "seen" and "unseen": rates of each skill; "judge": what it says of "real" pictures and of those after the
        "tokenizer"; "ceiling": the rates of each skill on the same pictures; "agreement": how often an answer about a
        drawing is what was asked for; "copies": what the nearest training pictures show, where these were kept.
    """
    scenes = {row["id"]: scene_of(row["scene"]) for row in pictures if is_scene(row)}
    asked = [row for row in drawings if row.get("picture") in scenes]
    if not asked:
        return {}
    names = name_shapes or shape_names()
    drawn = [row for row in asked if row.get("files")]
    readings = dict(zip((row["id"] for row in drawn), _read(out, drawn, names), strict=True))
    judged = [
        (scene, judge_scene(scene, readings[row["id"]]) if row["id"] in readings else NOTHING)
        for row in asked
        for scene in [scenes[row["picture"]]]
    ]
    write_jsonl(out / GENEVAL, geneval_rows(asked, judged))
    rows = [_row(row, each, readings.get(row["id"], Reading(()))) for row, each in zip(asked, judged, strict=True)]
    write_jsonl(out / VERDICTS, rows)
    found: dict[str, Any] = {
        name: skill_rates([each for row, each in zip(asked, judged, strict=True) if row["split"] == split])
        for split, name in SPLITS.items()
        if any(row["split"] == split for row in asked)
    }
    real = [{**row, "picture": row["id"]} for row in pictures if row["id"] in scenes and row["split"] in SPLITS]
    again = {row["id"]: row for row in reconstructions}
    copied = [{**again[row["id"]], "picture": row["id"]} for row in real if row["id"] in again]
    known_right = {
        name: [
            (scenes[row["picture"]], judge_scene(scenes[row["picture"]], reading))
            for row, reading in zip(those, _read(out, those, names), strict=True)
        ]
        for name, those in (("real", real), ("tokenizer", copied))
        if those
    }
    found["judge"] = {name: _reads(each) for name, each in known_right.items()}
    found["ceiling"] = {name: skill_rates(each) for name, each in known_right.items()}
    if asked_back:
        found["agreement"] = _agreement(asked_back)
    if training := TrainingPictures.load(out):
        found["copies"] = copies(out, rows, training)
    return found


NOTHING = SceneVerdict(False, False, False, False, False, "no picture")


def _read(out: Path, rows: Sequence[Row], names: NameShapes) -> list[Reading]:
    images: list[Image.Image] = [open_picture(out, row) for row in rows]
    return read_pictures(images, names)


def _reads(judged: Sequence[tuple[Scene, SceneVerdict]]) -> dict[str, Any]:
    """How often the judge reads colour, shape, count and relation rightly where all of it is known to be right."""
    alone = [verdict for scene, verdict in judged if scene.kind == "colour"]
    pairs = [verdict for scene, verdict in judged if scene.kind == "pair"]
    return {
        "colour": rate([verdict.colours for _, verdict in judged if verdict.shapes]),
        "shape": rate([verdict.shapes for verdict in alone]),
        "count": rate([verdict.number for _, verdict in judged]),
        "relation": rate([verdict.shapes and bool(verdict.placed) for verdict in pairs]),
    }


def _agreement(rows: Sequence[Row]) -> dict[str, Any]:
    kinds = dict.fromkeys(row["kind"] for row in rows)
    right = {kind: [is_right(row["answer"], row["expected"]) for row in rows if row["kind"] == kind] for kind in kinds}
    return {kind: rate(hits) for kind, hits in right.items()} | {
        "all": rate([hit for hits in right.values() for hit in hits])
    }


def _row(row: Row, judged: tuple[Scene, SceneVerdict], reading: Reading) -> dict[str, Any]:
    scene, verdict = judged
    about = {"id": row["id"], "split": SPLITS.get(row["split"], row["split"]), "prompt": row["prompt"]}
    things = [
        {"shape": thing.shape, "colour": thing.colour, "centre": [float(place) for place in thing.centre]}
        for thing in reading.things
    ]
    return (
        about
        | {"files": row.get("files", []), "kind": scene.kind, "cell": scene.cell, "right": verdict.right}
        | {key: getattr(verdict, key) for key in ("shapes", "number", "colours", "placed", "reason")}
        | {"scene": scene.described(), "things": things}
    )
