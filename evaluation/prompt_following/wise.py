"""WISE: does a picture show what a prompt means, where that takes knowledge of the world? A judge says so in scores.

Niu et al., arXiv 2503.07265. 1000 prompts, one picture each. Two rules of github.com/PKU-YuanGroup/WISE:

- the verified data (data_verified/): the judge says 0 or 1, calculate_verified.py;
- the first release (WISE_legacy/data/): consistency, realism and aesthetic quality from 0 to 2 weigh 0.7, 0.2 and 0.1,
  Calculate.py.

The data say which: files `*_verified.json` or `merge.json`, else the others. The judge is asked in the words of
`judge.txt` beside the data, with {prompt} and {explanation} in it, else in our own; scores of different words, and of
different judges, do not compare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.evaluation.base.prompt_benchmark import (
    QUESTION,
    Check,
    Found,
    mean,
    part_means,
    weighted_interval,
)
from vargpt_lightning.evaluation.formats.layouts import read_json, read_jsonl
from vargpt_lightning.evaluation.rules.shared import check_parallel
from vargpt_lightning.utils.errors import UserError

NAME = "wise"
TITLE = "WISE"
HEADLINE = "wiscore"
SCALE = 100
PICTURES = 1
REFERENCE = "github.com/PKU-YuanGroup/WISE eb51174"

VERIFIED, LEGACY = "verified", "legacy"
VERDICT = "verdict"
AXES = {"consistency": 0.7, "realism": 0.2, "aesthetic_quality": 0.1}
FULL_MARKS = 2  # of each axis
WEIGHTS = {"CULTURE": 0.4, "TIME": 0.12, "SPACE": 0.12, "BIOLOGY": 0.12, "PHYSICS": 0.12, "CHEMISTRY": 0.12}
LAST = {  # number of each part's last prompt
    VERIFIED: dict(zip(WEIGHTS, (400, 520, 640, 760, 880, 1000), strict=True)),
    LEGACY: dict(zip(WEIGHTS, (400, 567, 700, 800, 900, 1000), strict=True)),
}
JUDGE = {
    VERIFIED: "The picture was drawn for this prompt: {prompt}\nWhat the prompt means: {explanation}\n"
    "Say 1 if the picture shows what is meant, with its objects and their relations right, and can be made out; "
    "say 0 if anything that matters is missing, wrong or spoilt, or if you are in doubt. Beauty and style do not count."
    "\nAnswer in one line:\nScore: <0 or 1>",
    LEGACY: "The picture was drawn for this prompt: {prompt}\nWhat the prompt means: {explanation}\n"
    "Judge strictly, from 0 (fails) over 1 (in part) to 2 (flawless), and in doubt the lower: how completely it shows "
    "what is meant (consistency), how far it could be a photograph (realism), and how well it is composed (aesthetic "
    "quality).\nAnswer in three lines:\nConsistency: <0-2>\nRealism: <0-2>\nAesthetic Quality: <0-2>",
}
TEMPLATE = "judge.txt"
_AXIS = re.compile(r"(consistency|realism|aesthetic quality)\*{0,2}\s*:?\s*(\d)", re.IGNORECASE)
_SCORE = re.compile(r"score\*{0,2}\s*:?\s*([01])\b", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?</think>\s*|</think>\s*", re.DOTALL)


def load(path: Path) -> list[Record]:
    """The prompts of the authors' files, by number, with the rule that goes with them.

    Raises:
        UserError: there are none, one has no number from 1 to 1000, or two have the same.
    """
    folder = Path(path)
    files = [folder] if folder.is_file() else _files(folder)
    rule = VERIFIED if any(file.stem.endswith(VERIFIED) or file.stem == "merge" for file in files) else LEGACY
    judge = _template(folder if folder.is_dir() else folder.parent, rule)
    records: dict[int, Record] = {}
    for file in files:
        rows = read_json(file)
        for place, row in enumerate(rows if isinstance(rows, list) else [], 1):
            number = row.get("prompt_id") if isinstance(row, dict) else None
            if type(number) is not int or not 1 <= number <= 1000 or not {"Prompt", "Explanation"} <= row.keys():
                raise UserError(f"{file}, prompt {place}: expected Prompt, Explanation, and prompt_id from 1 to 1000")
            if number in records:
                raise UserError(f"{file}, prompt {place}: prompt_id {number} comes twice")
            record = {"id": str(number), "prompt": row["Prompt"], "explanation": row["Explanation"], "rule": rule}
            records[number] = {**record, "category": part_of(number, rule), "judge": judge}
    if not records:
        raise UserError(f"{folder}: no prompts; expected the authors' JSON files, such as culture_verified.json")
    return [records[number] for number in sorted(records)]


def _files(folder: Path) -> list[Path]:
    if (folder / "merge.json").is_file():
        return [folder / "merge.json"]
    verified = sorted(folder.glob(f"*_{VERIFIED}.json"))
    return verified or [file for file in sorted(folder.glob("*.json")) if not file.stem.endswith("_rewrite")]


def _template(folder: Path, rule: str) -> str:
    file = folder / TEMPLATE
    text = file.read_text(encoding="utf-8") if file.is_file() else JUDGE[rule]
    if "{prompt}" not in text:
        raise UserError(f"{file}: holds no {{prompt}}; expected the judge's question with {{prompt}} in it")
    return text


def part_of(number: int, rule: str) -> str:
    """The part that a prompt's number belongs to."""
    return next(part for part, last in LAST[rule].items() if number <= last)


def picture_ids(record: Record, count: int) -> list[str]:
    """The prompt's number; with a place behind it where there are several."""
    return [str(record["id"])] if count == 1 else [f"{record['id']}/{place}" for place in range(count)]


def checks(record: Record) -> Sequence[Check]:
    """What the judge is asked."""
    words = record["judge"].replace("{explanation}", record["explanation"]).replace("{prompt}", record["prompt"])
    return [Check(VERDICT, QUESTION, words, max_new_tokens=500)]


def score(found: Found, record: Record) -> Score:
    """The judge's score, 0 to 1; NaN, which counts nowhere, where its answer holds none. `parsed` is what it said."""
    said = found[VERDICT]
    marks = dict(said) if isinstance(said, Mapping) else read_verdict(str(said), record["rule"])
    value = marks.get("score", math.nan) if record["rule"] == VERIFIED else wiscore(marks)
    return Score(value, marks, "unparsed" if math.isnan(value) else "ok")


def read_verdict(answer: str, rule: str) -> dict[str, float]:
    """The marks in a judge's answer: with their names, else as numbers in lines of their own; empty for none."""
    if rule == VERIFIED:
        text = _THOUGHT.sub("", answer).strip()
        named = _SCORE.search(text)
        alone = re.findall(r"(?m)^\s*([01])\s*$", text)
        first = named[1] if named else alone[0] if len(alone) == 1 else None
        return {} if first is None else {"score": float(first)}
    marks = {name.lower().replace(" ", "_"): float(mark) for name, mark in _AXIS.findall(answer)}
    alone = re.findall(r"(?m)^\s*([0-2])\s*$", answer)
    if not marks and len(alone) >= len(AXES):
        marks = {name: float(mark) for name, mark in zip(AXES, alone, strict=False)}
    return marks


def wiscore(marks: Mapping[str, Any]) -> float:
    """The weighted mean of the three marks; NaN where one is missing."""
    if not marks.keys() >= AXES.keys():
        return math.nan
    return weighted(marks, AXES) / FULL_MARKS


def weighted(values: Mapping[str, Any], weights: Mapping[str, float]) -> float:
    """The weighted sum, added up in the order of the weights."""
    total = 0.0
    for name, weight in weights.items():
        total += weight * values[name]
    return total


def aggregate(records: Sequence[Record], scores: Sequence[Score]) -> dict[str, float]:
    """The weighted mean of the parts (NaN unless all six are there), and each part. The interval is over prompts."""
    check_parallel(records, scores)
    values, parts = [each.value for each in scores], [str(record["category"]) for record in records]
    means = part_means(values, parts)
    whole = all(part in means for part in WEIGHTS)
    overall = weighted(means, WEIGHTS) if whole else math.nan
    low, high = weighted_interval(values, [record["id"] for record in records], parts, WEIGHTS)
    unparsed = sum(map(math.isnan, values))
    found = {HEADLINE: overall, **{part: means[part] for part in WEIGHTS if part in means}}
    found |= {"mean": mean([value for value in values if not math.isnan(value)])}
    counts = {"n": float(len(values) - unparsed), "unparsed": float(unparsed)}
    return {**found, **counts, "low": low if whole else math.nan, "high": high if whole else math.nan}


def read_results(path: Path, records: Sequence[Record]) -> dict[str, Found]:
    """What the authors' judges wrote: prompt_id and the marks in each line; a line without marks is left out."""
    rule = records[0]["rule"]
    names = ("score",) if rule == VERIFIED else tuple(AXES)
    found: dict[str, Found] = {}
    for row in read_jsonl(path, ("prompt_id",)):
        marks = {name: row[name] for name in names if isinstance(row.get(name), (int, float))}
        if len(marks) == len(names) and (rule == LEGACY or marks["score"] in (0, 1)):
            found[str(row["prompt_id"])] = {VERDICT: {name: float(mark) for name, mark in marks.items()}}
    return found
