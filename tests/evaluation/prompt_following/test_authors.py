"""Scores of prompt-following equal those that the authors' own functions gave to the same random evidence.

The answers in tests/data/prompt_following/authors.json were written by `python -m tests.benchmarks.agree_prompts`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import agree_prompts
from vargpt_lightning.evaluation.prompt_following import wise

KEPT = json.loads((Path(__file__).parents[2] / "data" / "prompt_following" / "authors.json").read_text("utf-8"))
OURS: dict[str, Callable[[Any], Any]] = {
    "geneval": agree_prompts.geneval_ours,
    "dpg_bench": agree_prompts.dpg_ours,
    "t2i_spatial": agree_prompts.spatial_ours,
    "t2i_attribute": agree_prompts.attribute_ours,
    "wise_verified": agree_prompts.verdict_ours(wise.VERIFIED),
    "wise_legacy": agree_prompts.verdict_ours(wise.LEGACY),
}


@pytest.mark.parametrize("name", OURS)
def test_scores_are_the_authors(name: str) -> None:
    assert len(KEPT[name]) == 60
    assert [OURS[name](each["case"]) for each in KEPT[name]] == [each["theirs"] for each in KEPT[name]]
    assert len({json.dumps(each["theirs"]) for each in KEPT[name]}) > 1, "the cases tell answers apart"


def test_the_cases_are_made_again() -> None:
    """The kept cases are those that the script makes today: its agreement speaks of them."""
    for name, make in (("geneval", agree_prompts.geneval_case), ("t2i_spatial", agree_prompts.spatial_case)):
        dice = random.Random(name)
        assert [make(dice) for _ in range(60)] == [each["case"] for each in KEPT[name]]
