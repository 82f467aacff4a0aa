"""DPG-Bench: yes-or-no questions about long prompts; one that depends on a question answered no counts as no.

Hu et al., ELLA, arXiv 2403.05135. 1065 prompts, four pictures each, questions by a VQA system (the authors': mPLUG-
large). The rules are those of dpg_bench/compute_dpg_bench.py of github.com/TencentQQGYLab/ELLA, oddities included:

- the first row of questions is not read, and where others depend on it, no picture of its prompt counts;
- categories count answers as they were given, without dependencies, and of a prompt's last picture alone.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.evaluation.base.prompt_benchmark import QUESTION, Check, Found, weighted_interval
from vargpt_lightning.evaluation.formats.layouts import read_jsonl
from vargpt_lightning.evaluation.rules.shared import check_parallel
from vargpt_lightning.utils.errors import UserError

NAME = "dpg_bench"
TITLE = "DPG-Bench"
HEADLINE = "score"
SCALE = 100
PICTURES = 4
REFERENCE = "github.com/TencentQQGYLab/ELLA 3c228f1"

FILE = "dpg_bench.csv"
COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
YES = "yes"
DETAIL = re.compile(r"^(?P<path>.*?), (?P<crop>\([^()]*\)|None), (?P<question>.*), (?P<answer>[^,]*)$")


def load(path: Path) -> list[Record]:
    """The prompts of `dpg_bench.csv`, with their questions, what these depend on, and their categories.

    The words of a prompt are those of `prompts/<id>.txt` where it is there, else of the table's column `text`.

    Raises:
        UserError: the file is missing, lacks a column, or has a number that is none.
    """
    folder = Path(path)
    file = folder / FILE if folder.is_dir() else folder
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; expected the authors' table of questions")
    records: dict[str, Record] = {}
    with open(file, encoding="utf-8-sig", newline="") as lines:
        table = csv.DictReader(lines)
        if lost := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
            raise UserError(f"{file}: lacks the column {lost[0]}; expected {', '.join(COLUMNS)}")
        before = ""
        for place, row in enumerate(table):
            if place == 0:  # as the authors' code does
                continue
            id_ = row["item_id"]
            if id_ != before:  # a prompt that comes again starts anew, as there
                text = file.parent / "prompts" / f"{id_}.txt"
                said = text.read_text(encoding="utf-8").strip() if text.is_file() else str(row.get("text") or "")
                records[id_] = {"id": id_, "prompt": said, "category": "", "questions": {}}
            before = id_
            _add_question(records[id_]["questions"], row, f"{file}, row {place + 1}")
    if not records:
        raise UserError(f"{file}: holds no questions")
    return list(records.values())


def _add_question(questions: dict[str, Any], row: dict[str, str], where: str) -> None:
    try:
        number, parents = int(row["proposition_id"]), [int(each) for each in row["dependency"].split(",")]
    except ValueError as error:
        raise UserError(f"{where}: {error}; expected numbers of questions, commas between") from error
    category = row["tuple"].split("(")[0].strip()
    questions[str(number)] = {
        "text": row["question_natural_language"],
        "after": [str(each) for each in parents if each != 0],
        "category": category,
    }


def picture_ids(record: Record, count: int) -> list[str]:
    """A file for each picture in a folder of the prompt."""
    return [f"{record['id']}/{place}" for place in range(count)]


def whole_id(record: Record) -> str:
    """The one file with all four pictures that the authors' layout has."""
    return str(record["id"])


def checks(record: Record) -> Sequence[Check]:
    """A question each; what others read is no part of it."""
    return [Check(name, QUESTION, each["text"]) for name, each in record["questions"].items()]


def score(found: Found, record: Record) -> Score:
    """The share of questions answered yes, where what they depend on is too; `parsed` has each answer by itself.

    An answer is yes when it is that word alone, in any case. A prompt with a question that is not read counts nowhere.
    """
    answers = {name: float(_is_yes(str(found[name]))) for name in record["questions"]}
    counted = dict(answers)
    for name, question in record["questions"].items():
        for parent in question["after"]:
            if parent not in counted:
                return Score(math.nan, None, "unparsed")
            if not counted[parent]:
                counted[name] = 0.0
                break
    return Score(sum(counted.values()) / len(counted), answers)


def _is_yes(answer: str) -> bool:
    return answer.strip().rstrip(".").casefold() == YES


def aggregate(records: Sequence[Record], scores: Sequence[Score]) -> dict[str, float]:
    """The mean over prompts of their pictures' mean, then categories: `l1/<name>` and `l2/<name>`.

    `left_out` counts prompts that count nowhere. The interval is over prompts.
    """
    check_parallel(records, scores)
    prompts: dict[str, tuple[Record, list[Score]]] = {}
    for record, each in zip(records, scores, strict=True):
        prompts.setdefault(record["id"], (record, []))[1].append(each)
    means: dict[str, float] = {}
    coarse: dict[str, list[float]] = {}
    fine: dict[str, list[float]] = {}
    for id_, (record, pictures) in prompts.items():
        values = [each.value for each in pictures]
        if any(map(math.isnan, values)):
            continue
        means[id_] = sum(values) / len(values)
        for name, question in record["questions"].items():
            answer = (pictures[-1].parsed or {}).get(name, 0.0)  # none of a picture that is not there
            fine.setdefault(question["category"], []).append(answer)
            coarse.setdefault(question["category"].split("-")[0].strip(), []).append(answer)
    low, high = weighted_interval([*means.values()], [*means], [""] * len(means))
    found = {HEADLINE: float(np.mean([*means.values()])) if means else math.nan}
    found |= {f"l1/{name}": float(np.mean(coarse[name])) for name in sorted(coarse)}
    found |= {f"l2/{name}": float(np.mean(fine[name])) for name in sorted(fine)}
    counts = {"n": len(means), "pictures": len(scores), "left_out": len(prompts) - len(means)}
    return {**found, **{name: float(count) for name, count in counts.items()}, "low": low, "high": high}


def read_results(path: Path, records: Sequence[Record]) -> dict[str, Found]:
    """What compute_dpg_bench.py wrote to `..._detail.txt`: picture, corners of the part, question, answer a line.

    JSON lines of picture, question (its number) and answer are read too.
    """
    numbers = {(record["id"], each["text"]): name for record in records for name, each in record["questions"].items()}
    found: dict[str, dict[str, str]] = {}
    if path.suffix == ".jsonl":
        for row in read_jsonl(path, ("picture", "question", "answer")):
            found.setdefault(str(row["picture"]), {})[str(row["question"])] = str(row["answer"])
        return dict(found)
    places: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = DETAIL.match(line)
        id_ = Path(match["path"]).name.split(".")[0] if match else ""
        name = numbers.get((id_, match["question"])) if match else None
        if match is None or name is None:
            raise UserError(f"{path}, line {number}: {line[:80]!r} is no answer to a question of {FILE}")
        crops = places.setdefault(id_, [])
        if match["crop"] not in crops:
            crops.append(match["crop"])
        found.setdefault(f"{id_}/{crops.index(match['crop'])}", {})[name] = match["answer"]
    return dict(found)
