"""All scoring and prompt examples of POPE, MME and GQA; where the reference is disputed, what we do and why."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning.evaluation.benchmarks import get

DATA = Path(__file__).resolve().parents[2] / "data" / "benchmarks"
SCORING = json.loads((DATA / "scoring_examples.json").read_text())
PROMPTS = json.loads((DATA / "prompt_examples.json").read_text())
NAMES = ("pope", "mme", "gqa")

# The reference looks wrong on these. Under "lmms_eval" we do as it does, all the same: the protocol's one purpose is
# to be comparable with tables that were made with it. "lenient" reads what the text says: its score stands here.
DISPUTED = {
    ("pope", "yes", "Yes."): 1.0,  # a full stop is no other answer
    ("pope", "yes", "There is a chair in the image."): 0.0,  # says yes only if the chair is what was asked for
    ("pope", "yes", "是"): 0.0,  # yes in another language: not asked for
    ("pope", "yes", "Yes</s>"): 1.0,  # a tag that the chat template left behind
    ("pope", "no", "No, there is no person in the image."): 1.0,  # an explanation is no other answer
    ("pope", "no", "answer: no"): 1.0,
    ("pope", "no", "The answer is no"): 1.0,
    ("pope", "no", "It is not visible, so no."): 1.0,
    ("pope", "no", "No\n\nThe dog is absent."): 1.0,
    ("mme", "No", "There is no person in the image."): 1.0,  # the reference reads four characters
}


def examples(disputed: bool) -> list[Any]:
    return [
        pytest.param(name, record, output, value, other, id=f"{name}-{number}")
        for name in NAMES
        for number, (record, output, value, other, mark) in enumerate(
            zip(*(SCORING[name][key] for key in ("records", "outputs", "scores", "alt", "disputed")), strict=True)
        )
        if mark == disputed
    ]


@pytest.mark.parametrize(("name", "record", "output", "value", "other"), [*examples(False), *examples(True)])
def test_scores_equal_the_references(name, record, output, value, other):
    before = copy.deepcopy(record)
    assert get(name).score(output, record).value == value == other["lmms_eval_0.3"]
    if "llava" in other:
        assert get(name).score(output, record, "official").value == other["llava"]
    assert record == before


def test_the_disputed_are_those_that_are_listed_here():
    found = {(each.values[0], each.values[1]["answer"], each.values[2]) for each in examples(True)}
    assert found == set(DISPUTED)


@pytest.mark.parametrize(("name", "answer", "output"), DISPUTED)
def test_what_lenient_does_with_the_disputed(name, answer, output):
    record = {"question_id": "1", "answer": answer, "category": "existence"}
    assert get(name).score(output, record, "lenient").value == DISPUTED[name, answer, output]


@pytest.mark.parametrize("name", NAMES)
def test_prompts_equal_the_examples(name):
    assert PROMPTS[name]
    for example in PROMPTS[name]:
        assert get(name).prompt(example["record"]) == example["prompt"]
