"""All scoring and prompt examples of the multiple-choice benchmarks; what we do where the reference is disputed."""

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
OFFICIAL = {"mmbench": "vlmevalkit", "seedbench": "llava", "mmmu": "official", "scienceqa_img": "llava"}

# The reference looks wrong on these. Under "lmms_eval" we do as it does, all the same: the protocol's one purpose is
# to be comparable with tables that were made with it. "lenient" reads what the text says: its score stands here.
LETTER_IN_PLAIN_SIGHT = 1.0
OPTION_TEXT = 1.0
NO_ANSWER = 0.0
DISPUTED = {
    ("seedbench", "The correct answer is **C**."): LETTER_IN_PLAIN_SIGHT,  # the reference reads "T"
    ("seedbench", "(c) Cooking"): LETTER_IN_PLAIN_SIGHT,
    ("seedbench", "I think it is A, because it shows It is raining."): LETTER_IN_PLAIN_SIGHT,
    ("seedbench", "The image shows playing chess."): OPTION_TEXT,
    ("seedbench", "A picture is shown and I am not sure what it is"): NO_ANSWER,  # an article is no letter
    ("seedbench", "[C]"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "$900"): OPTION_TEXT,  # the reference wants more than five words before it looks for texts
    ("mmmu", "Cohort"): 0.0,  # the text of another option
    ("mmmu", "Rembrandt."): OPTION_TEXT,
    ("mmmu", "answer: a"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "   "): NO_ANSWER,  # the reference draws a letter
    ("mmmu", "B: Rembrandt"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "I cannot determine the answer from the image."): NO_ANSWER,  # the reference draws a letter
    ("mmmu", "\\boxed{A}"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "A picture is shown and I am not sure what it is"): NO_ANSWER,
    ("mmmu", "[B]"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "B-CD"): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "The first tree, option A, since every leaf has the same depth."): LETTER_IN_PLAIN_SIGHT,
    ("mmmu", "24/7"): 1.0,  # the key is a list of two spellings, which the reference takes for one text
    ("mmmu", "3.5"): 0.0,  # equals neither spelling
    ("mmmu", "Point P is the answer"): 1.0,  # the reference keeps what stands behind "is"
    ("mmmu", "The eyes have it"): 0.0,  # "yes" is no word of it
    ("scienceqa_img", "The answer is D."): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "Answer: D"): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "D: Antarctica"): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "The image shows Antarctica."): OPTION_TEXT,
    ("scienceqa_img", "A West Virginia"): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "[D]"): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "A-West Virginia"): LETTER_IN_PLAIN_SIGHT,
    ("scienceqa_img", "West Virginia West Virginia West Virginia"): OPTION_TEXT,
    ("scienceqa_img", "Therefore, the final answer is B."): LETTER_IN_PLAIN_SIGHT,
}
ENDS = ("Therefore, the final answer is B.",)  # how an output too long to stand above ends


def examples(disputed: bool) -> list[Any]:
    return [
        pytest.param(name, record, output, value, other, id=f"{name}-{number}")
        for name in OFFICIAL
        for number, (record, output, value, other, mark) in enumerate(
            zip(*(SCORING[name][key] for key in ("records", "outputs", "scores", "alt", "disputed")), strict=True)
        )
        if mark == disputed
    ]


def short(output: str) -> str:
    return next((end for end in ENDS if output.endswith(end)), output)


@pytest.mark.parametrize(("name", "record", "output", "value", "other"), [*examples(False), *examples(True)])
def test_scores_equal_the_references(name, record, output, value, other):
    before = copy.deepcopy(record)
    module = get(name)
    assert module.score(output, record).value == value
    assert module.score(output, record, "official").value == other[OFFICIAL[name]]
    if name == "scienceqa_img":
        assert module.score(output, record, "lmms_eval_0.3").value == other["lmms_eval_0.3"]
    assert record == before


def test_the_disputed_are_those_that_are_listed_here():
    assert {(each.values[0], short(each.values[2])) for each in examples(True)} == set(DISPUTED)


@pytest.mark.parametrize(("name", "record", "output", "value", "other"), examples(True))
def test_what_lenient_does_with_the_disputed(name, record, output, value, other):
    assert get(name).score(output, record, "lenient").value == DISPUTED[name, short(output)]


def test_groups_of_rotations_give_the_reference_s_figure():
    examples = SCORING["mmbench"]
    scores = [get("mmbench").score(*pair) for pair in zip(examples["outputs"], examples["records"], strict=True)]
    figures = get("mmbench").aggregate(examples["records"], scores)
    assert figures["accuracy"] == pytest.approx(5 / 6)  # all but the question that was answered in lower case


@pytest.mark.parametrize("name", OFFICIAL)
def test_prompts_equal_the_examples(name):
    assert PROMPTS[name]
    for example in PROMPTS[name]:
        assert get(name).prompt(example["record"]) == example["prompt"]
