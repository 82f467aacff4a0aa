"""GenEval: are the objects that a prompt names in the picture, as many, where and in the colour it says?

Ghosh et al., arXiv 2310.11513. 553 prompts of six kinds, four pictures each; objects by a detector (the authors':
Mask2Former), colours by CLIP on what was detected. The rules are those of evaluation/evaluate_images.py and
summary_scores.py of github.com/djghosh13/geneval with their default options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.evaluation.base.prompt_benchmark import (
    DETECTIONS,
    Check,
    Detection,
    Found,
    mean,
    part_means,
    weighted_interval,
)
from vargpt_lightning.evaluation.formats.layouts import read_jsonl
from vargpt_lightning.evaluation.rules.shared import check_parallel
from vargpt_lightning.utils.errors import UserError

NAME = "geneval"
TITLE = "GenEval"
HEADLINE = "overall"
SCALE = 100
PICTURES = 4
REFERENCE = "github.com/djghosh13/geneval af4902f"

FILE = "evaluation_metadata.jsonl"
OBJECTS, CORRECT = "objects", "correct"
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COLOUR_TEXTS = (
    "a photo of a {colour} {label}",
    "a photo of a {colour}-colored {label}",
    "a photo of a {colour} object",
)
LABELS = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}  # COCO's names
SURE, SURE_OF_COUNTS = 0.3, 0.9  # a detection counts when its score is above
MOST = 16  # objects of a class
SHIFT = 0.1  # of both sizes: centres nearer than that are in no direction of one another
SIDEWAYS = 0.5  # of the offset's length


def load(path: Path) -> list[Record]:
    """The prompts of `evaluation_metadata.jsonl`; raises UserError where it is missing or has other rows."""
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    rows = read_jsonl(file, ("tag", "prompt", "include"))
    return [{**row, "id": f"{place:05d}", "category": row["tag"]} for place, row in enumerate(rows)]


def picture_ids(record: Record, count: int) -> list[str]:
    """Folder and file of each picture as in the authors' layout: 00000/samples/0000."""
    return [f"{record['id']}/samples/{place:04d}" for place in range(count)]


def checks(record: Record) -> Sequence[Check]:
    """The objects in the picture, and the colours of those whose colour the prompt says."""
    coloured = dict.fromkeys(each["class"] for each in record["include"] if "color" in each)
    return [Check(OBJECTS, DETECTIONS, colours=tuple(coloured))]


def score(found: Found, record: Record) -> Score:
    """Score 1 where all that the prompt asks for is there and nothing that it excludes; `parsed` says what is not."""
    if CORRECT in found:
        return Score(float(bool(found[CORRECT])), found.get("reason", ""))
    objects, wrong = kept_objects(found[OBJECTS], str(record["tag"])), []
    groups: list[Sequence[Detection] | None] = []
    for wanted in record["include"]:
        label, count = str(wanted["class"]), int(wanted["count"])
        there = objects.get(label, [])[:count]
        reasons = _missing(there, wanted, groups)
        wrong += reasons
        groups.append(None if reasons else there)
    for barred in record.get("exclude") or ():
        there = objects.get(str(barred["class"]), [])
        if len(there) >= barred["count"]:
            wrong.append(f"{len(there)} {barred['class']}, expected fewer than {barred['count']}")
    return Score(float(not wrong), "\n".join(wrong))


def _missing(
    there: Sequence[Detection], wanted: Mapping[str, Any], groups: Sequence[Sequence[Detection] | None]
) -> list[str]:
    """What is wrong with the surest objects of a class; `groups` are those of the classes before."""
    label, count = str(wanted["class"]), int(wanted["count"])
    if len(there) < count:
        return [f"{len(there)} {label}, expected {count} or more"]
    if "color" in wanted:
        colours = [_colour(each) for each in there]
        if colours.count(wanted["color"]) < count:
            return [f"{label} is {', '.join(colours)}; expected {count} of {wanted['color']}"]
    if "position" in wanted:
        side, target = wanted["position"]
        others = groups[target]
        if others is None:
            return [f"nothing for {label} to be {side}"]
        for one in there:
            for other in others:
                if side not in (sides := relations(one, other)):
                    return [f"{label} is {' and '.join(sorted(sides)) or 'in no direction'}; expected {side}"]
    return []


def _colour(detection: Detection) -> str:
    if not detection.colour:
        raise UserError(f"{NAME}: a {detection.label} has no colour; expected one of {', '.join(COLOURS)}")
    return detection.colour


def kept_objects(detections: Sequence[Detection], tag: str) -> dict[str, list[Detection]]:
    """Objects by class, the surest first: those above the threshold of the kind of prompt, at most 16 of a class."""
    sure = SURE_OF_COUNTS if tag == "counting" else SURE
    by_label: dict[str, list[Detection]] = {}
    for each in detections:
        by_label.setdefault(each.label, []).append(each)
    found = {}
    for label, those in by_label.items():
        scores = np.array([each.score for each in those], dtype=np.float32)  # as detectors give them
        order = np.argsort(scores)[::-1]  # numpy's own order of equal scores, as the authors have it
        order = order[scores[order] > sure][:MOST]
        if len(order):
            found[label] = [those[place] for place in order]
    return found


def relations(one: Detection, other: Detection) -> set[str]:
    """Where one object lies from another: left of, right of, above, below; none where their centres are too near."""
    corners = np.array([one.box, other.box], dtype=np.float32).reshape(2, 2, 2)  # object, corner, axis
    centres, sizes = corners.mean(axis=1), np.abs(corners[:, 1] - corners[:, 0])
    offset = centres[0] - centres[1]
    clear = np.maximum(np.abs(offset) - SHIFT * (sizes[0] + sizes[1]), 0) * np.sign(offset)
    if np.all(np.abs(clear) < 1e-3):
        return set()
    across, down = clear / np.linalg.norm(offset)
    sides = {"left of": across < -SIDEWAYS, "right of": across > SIDEWAYS}
    sides |= {"above": down < -SIDEWAYS, "below": down > SIDEWAYS}
    return {side for side, holds in sides.items() if holds}


def aggregate(records: Sequence[Record], scores: Sequence[Score]) -> dict[str, float]:
    """The mean over the kinds of prompts, each kind, the share of right pictures, and of prompts with a right one.

    The interval is over prompts within each kind.
    """
    check_parallel(records, scores)
    values, kinds = [each.value for each in scores], [str(record["tag"]) for record in records]
    by_kind = part_means(values, kinds)
    right: dict[str, bool] = {}
    for record, value in zip(records, values, strict=True):
        right[record["id"]] = right.get(record["id"], False) or value == 1
    low, high = weighted_interval(values, [record["id"] for record in records], kinds)
    return {
        HEADLINE: mean([*by_kind.values()]),
        **by_kind,
        "pictures": mean(values),
        "prompts": mean([float(each) for each in right.values()]),
        "n": float(len(values)),
        "low": low,
        "high": high,
    }


def read_results(path: Path, records: Sequence[Record]) -> dict[str, Found]:
    """What evaluate_images.py wrote: filename (.../00000/samples/0000.png), correct and reason in each line."""
    found: dict[str, Found] = {}
    known = {str(record["id"]): record["prompt"] for record in records}
    for place, row in enumerate(read_jsonl(path, ("filename", "correct", "prompt")), 1):
        id_ = "/".join(Path(str(row["filename"])).with_suffix("").parts[-3:])
        prompt = known.get(id_.partition("/")[0])
        if prompt != row["prompt"]:
            raise UserError(f"{path}, row {place}: {row['filename']} is of {row['prompt']!r}, the data have {prompt!r}")
        found[id_] = {CORRECT: bool(row["correct"]), "reason": str(row.get("reason") or "")}
    return found


def results_row(picture: str, found: Found, score_: Score, record: Record) -> dict[str, Any]:
    """A line as evaluate_images.py writes it, for the authors' summary."""
    said = {name: value for name, value in record.items() if name not in ("id", "category", "picture")}
    row = {"filename": f"{picture}.png", "tag": record["tag"], "prompt": record["prompt"]}
    row |= {"correct": score_.value == 1, "reason": score_.parsed or "", "metadata": json.dumps(said)}
    if OBJECTS in found:
        kept = kept_objects(found[OBJECTS], str(record["tag"]))
        boxes = {label: [[*each.box, each.score] for each in those] for label, those in kept.items()}
        row["details"] = json.dumps(boxes)
    return row
