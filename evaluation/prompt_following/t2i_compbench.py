"""T2I-CompBench: colours, shapes and textures bound to their objects, places, doings, and all of these together.

Huang et al., arXiv 2307.06350. Ten pictures a prompt. The rules are those of github.com/Karine-Huang/T2I-CompBench:

- color, shape, texture: the product over a prompt's noun phrases of how sure a VQA system is of yes (BLIP_vqa.py)
- spatial: how sure a detector is of both objects, and how well their boxes lie as the words say (2D_spatial_eval.py)
- non_spatial: cosine of picture and prompt (CLIP_similarity.py)
- complex: the mean of those of the three that a prompt is about (3_in_1.py)

Noun phrases and objects come from `<category>_val.words.jsonl` beside the prompts, or from spaCy where it is installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.evaluation.base.prompt_benchmark import (
    DETECTIONS,
    QUESTION,
    SIMILARITY,
    Check,
    Detection,
    Found,
    mean,
    part_means,
    weighted_interval,
)
from vargpt_lightning.evaluation.formats.layouts import read_json
from vargpt_lightning.evaluation.rules.prompt_words import Words, read_words
from vargpt_lightning.evaluation.rules.shared import check_parallel
from vargpt_lightning.utils.errors import UserError

NAME = "t2i_compbench"
TITLE = "T2I-CompBench"
HEADLINE = "mean"
SCALE = 100
PICTURES = 10
REFERENCE = "github.com/Karine-Huang/T2I-CompBench 1b70949"

ATTRIBUTES = ("color", "shape", "texture")
SPATIAL, NON_SPATIAL, COMPLEX = "spatial", "non_spatial", "complex"
CATEGORIES = (*ATTRIBUTES, SPATIAL, NON_SPATIAL, COMPLEX)
OBJECTS, COSINE = "objects", "similarity"
PHRASES = 8  # of a prompt; later ones are not asked about
PLACES = (
    *("on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of"),
    *("on the top of", "on top of"),
)
BESIDE = PLACES[:3]
NEAR = 150  # pixels between centres
OVERLAP = 0.1  # of intersection and union
LEAST = 0.5  # spatial scores below count as 0
PEOPLE = ("girl", "boy", "man", "woman")


def load(path: Path) -> list[Record]:
    """The prompts of `<category>_val.txt`, all categories that there are, or those of one file.

    Raises:
        UserError: there is none, or neither their words nor spaCy.
    """
    place = Path(path)
    files = [place] if place.is_file() else [place / f"{name}_val.txt" for name in CATEGORIES]
    records: list[Record] = []
    for file in (file for file in files if file.is_file()):
        category = file.stem.removesuffix("_val")
        if category not in CATEGORIES:
            raise UserError(f"{file}: expected <category>_val.txt, the category one of {', '.join(CATEGORIES)}")
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        words = (
            read_words(file, prompts, complete=category == COMPLEX)
            if category != NON_SPATIAL
            else [None] * len(prompts)
        )
        asked = _asked(file.parent) if category == COMPLEX else None
        for number, (prompt, own) in enumerate(zip(prompts, words, strict=True)):
            record = {"id": f"{category}/{number:05d}", "number": number, "prompt": prompt, "category": category}
            parts = asked(prompt) if asked else ()
            records.append({**record, "words": own, "parts": parts})
    if not records:
        raise UserError(f"{place}: no prompts; expected the authors' files, such as color_val.txt")
    return records


def _asked(folder: Path) -> Any:
    """What a complex prompt is about, by the authors' two lists of prompts."""
    lists = {}
    for name in ("spatial", "action"):
        file = folder / f"complex_val_{name}.txt"
        if not file.is_file():
            raise UserError(f"{file}: there is no such file; complex prompts need it")
        lists[name] = {_plain(line) for line in file.read_text(encoding="utf-8").splitlines()}

    def parts(prompt: str) -> tuple[str, ...]:
        if _plain(prompt) in lists["spatial"]:
            return SPATIAL, "attribute"
        if _plain(prompt) in lists["action"]:
            return "action", "attribute"
        return "attribute", SPATIAL, "action"

    return parts


def _plain(line: str) -> str:
    return line.split(".")[0].lower()


def picture_ids(record: Record, count: int) -> list[str]:
    """Files as in the authors' layout, a folder for each category: color/samples/<prompt>_000000."""
    first = record["number"] * count
    return [f"{record['category']}/samples/{record['prompt']}_{first + place:06d}" for place in range(count)]


def checks(record: Record) -> Sequence[Check]:
    """What the prompt's category takes: a question for each noun phrase, the objects, or the likeness."""
    category, words, found = record["category"], record["words"], []
    parts = record["parts"]
    if category in ATTRIBUTES or "attribute" in parts:
        found += [Check(str(place), QUESTION, f"{phrase}?") for place, phrase in enumerate(words.phrases[:PHRASES])]
    if category == SPATIAL or SPATIAL in parts:
        found.append(Check(OBJECTS, DETECTIONS))
    if category == NON_SPATIAL:
        found.append(Check(COSINE, SIMILARITY, record["prompt"]))
    elif "action" in parts:
        found.append(Check(COSINE, SIMILARITY, words.without_adjectives))
    return found


def score(found: Found, record: Record) -> Score:
    """What a picture is worth; `parsed` has the parts of a complex prompt.

    An answer is a probability of yes, or a word: yes counts as 1, any other as 0.
    """
    if NAME in found:
        return Score(float(found[NAME]))
    category, words = record["category"], record["words"]
    if category in ATTRIBUTES:
        return Score(bound(found, words))
    if category == SPATIAL:
        return Score(placed(found[OBJECTS], words.objects, record["prompt"]))
    if category == NON_SPATIAL:
        return Score(float(found[COSINE]))
    values = {}
    for part in record["parts"]:
        if part == "attribute":
            values[part] = bound(found, words)
        elif part == SPATIAL:
            values[part] = placed(found[OBJECTS], words.objects, record["prompt"])
        else:
            values[part] = float(found[COSINE])
    return Score(together([*values.values()]), values)


def together(values: Sequence[float]) -> float:
    """The mean of two or three parts, with the roundings of the authors' code."""
    total = sum(values)
    return total * 0.5 if len(values) == 2 else total / len(values)


def bound(found: Found, words: Words) -> float:
    """The product over noun phrases of how sure the answers are of yes, to four digits (single precision, as there)."""
    product = np.float32(1)
    for place in range(min(PHRASES, len(words.phrases))):
        product = product * np.float32(_sure(found[str(place)]))
    return float(f"{float(product):.4f}")


def _sure(answer: Any) -> float:
    try:
        value = float(answer)
    except ValueError:
        return float(str(answer).strip().rstrip(".").casefold() == "yes")
    if not 0 <= value <= 1:
        raise UserError(f"{NAME}: the answer {answer!r}; expected yes, no, or a probability from 0 to 1")
    return value


def placed(detections: Sequence[Detection], objects: tuple[str, str] | None, prompt: str) -> float:
    """Half how sure both objects are, half how well they lie; below one half 0. The first of a class counts."""
    first: dict[str, Detection] = {}
    for each in detections:
        first.setdefault(each.label, each)
    pair = tuple("person" if name in PEOPLE else name for name in objects or ())
    there = [first[name] for name in pair if name in first]
    value = sum((0.25 * each.score for each in there), 0.0)
    if len(there) == 2:
        value += lie(next((place for place in PLACES if place in prompt), ""), there[0], there[1]) / 2
    return value if value >= LEAST else 0.0


def lie(place: str, one: Detection, other: Detection) -> float:
    """How well the first box lies at a place of the second, 0 to 1. "on top of" has no rule, and is 0."""
    (left, top, right, bottom), (left_2, top_2, right_2, bottom_2) = one.box, other.box
    across = (left_2 + right_2) / 2 - (left + right) / 2
    down = (top_2 + bottom_2) / 2 - (top + bottom) / 2
    if place in BESIDE:
        return 1.0 if abs(across) < NEAR or abs(down) < NEAR else NEAR / max(abs(across), abs(down))
    holds = {
        "on the right of": across < 0 and abs(across) > abs(down),
        "on the left of": across > 0 and abs(across) > abs(down),
        "on the bottom of": down < 0 and abs(down) > abs(across),
        "on the top of": down > 0 and abs(down) > abs(across),
    }
    if not holds.get(place, False):
        return 0.0
    wide, high = max(0, min(right, right_2) - max(left, left_2)), max(0, min(bottom, bottom_2) - max(top, top_2))
    shared = wide * high
    together = (right - left) * (bottom - top) + (right_2 - left_2) * (bottom_2 - top_2) - shared
    overlap = shared / together if together else 0.0
    return 1.0 if overlap < OVERLAP else OVERLAP / overlap


def aggregate(records: Sequence[Record], scores: Sequence[Score]) -> dict[str, float]:
    """The mean of the categories' means, and these. The interval is over prompts within each category."""
    check_parallel(records, scores)
    values, parts = [each.value for each in scores], [str(record["category"]) for record in records]
    means = part_means(values, parts)
    low, high = weighted_interval(values, [record["id"] for record in records], parts)
    n = float(sum(not math.isnan(value) for value in values))
    return {HEADLINE: mean([*means.values()]), **means, "n": n, "low": low, "high": high}


def read_results(path: Path, records: Sequence[Record]) -> dict[str, Found]:
    """What the authors' scripts wrote of one category to `vqa_result.json`: question_id, a picture's number, answer."""
    if len(categories := {record["category"] for record in records}) > 1:
        raise UserError(f"{path}: is of one category; expected --data <category>_val.txt, not {', '.join(categories)}")
    rows = read_json(path)
    answers = {int(row["question_id"]): float(row["answer"]) for row in rows}
    count, left = divmod(len(answers), len(records))
    if left or sorted(answers) != list(range(len(answers))):
        raise UserError(f"{path}: {len(answers)} pictures of {len(records)} prompts; expected as many of each")
    ids = [id_ for record in records for id_ in picture_ids(record, count)]
    return {id_: {NAME: answers[place]} for place, id_ in enumerate(ids)}
