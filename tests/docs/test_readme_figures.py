"""The README's table of figures is what `tests.docs.readme_figures` writes, and the report says the same."""

from __future__ import annotations

import copy
import re

import pytest

from tests.docs.readme_figures import BEGIN, END, README, between, placed
from vargpt_lightning.evaluation.base.figures import percent
from vargpt_lightning.evaluation.reports.summary import lines, markdown, sentence
from vargpt_lightning.utils.errors import UserError

RATES = {"n": 234, "rate_1": 0.876, "rate_5": 0.957, "chance_1": 1 / 288, "chance_5": 5 / 288}
SCORE = {"n": 54, "right": 49, "accuracy": 0.907, "baseline": 0.556, "margin": 5.1}
METRICS = {
    "drawings": {"train": {"identification": RATES, "kid_x1000": 159.9}},
    "baselines": {"blur": {"kid_x1000": 382.4}, "reconstruction": {"kid_x1000": 147.8, "identification": RATES}},
    "features": {"name": "EfficientNet-Lite0"},
    "pictures": {"gallery": 288},
    "mode_switch": {"drawing_prompts": {"rate": 1.0}, "questions": {"rate": 0.0}},
    "questions": {
        "category": {"val": SCORE, "test": SCORE, "heldout": {**SCORE, "n": 108}},
        "colour": {"heldout": {**SCORE, "margin": 0.5}},
        "name": {"train": {**SCORE, "n": 120}},
    },
    "open_kinds": ["name"],
}


def other(**changes):
    """Another seed's figures."""
    found = copy.deepcopy(METRICS)
    found["drawings"]["train"]["identification"] |= {"rate_1": 0.9, "rate_5": 0.9574}
    found["questions"]["colour"]["heldout"] |= {"margin": 3.0}
    return found | changes


def test_one_run_has_its_numbers_and_several_have_ranges():
    alone, three = markdown([METRICS]), markdown([METRICS, other(), METRICS])
    assert "| **87.6 %** (top 5: **95.7 %**) |" in alone
    assert "| **87.6 to 90 %** (top 5: **95.7 %**) |" in three
    assert "| held-out pictures, category | 91 % of 108 | most frequent answer 56 % |" in three
    assert "held-out pictures, open" not in three and "training pictures, open naming | 91 % of 120" in three


def test_the_sentence_says_what_the_table_says():
    said = sentence(METRICS)
    assert percent(0.876) in said and "1 of 2 kinds" in said and "162 questions" in said and "100 %" in said
    assert "87.6 to 90 %" in sentence(METRICS, other()) and "1 to 2 of 2 kinds" in sentence(METRICS, other())
    assert sentence({}) == "" and lines({}) == []


@pytest.mark.parametrize(
    "runs",
    [
        [{}],
        [METRICS, other(questions={})],
        [METRICS, other(pictures={"gallery": 300})],
        [METRICS, {"mode_switch": METRICS["mode_switch"]}],
    ],
)
def test_runs_that_were_asked_different_things_are_refused(runs):
    with pytest.raises(UserError):
        markdown(runs)


def test_the_page_keeps_all_but_what_is_between_the_comments():
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert placed(page, "new") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n" and between(placed(page, "new")) == "\nnew\n"
    with pytest.raises(UserError, match="results:begin"):
        placed("nothing", "new")


def words(text):
    """A text with N for each number and each range."""
    return re.sub(r"−?\d+(\.\d+)?( to −?\d+(\.\d+)?)?", "N", " ".join(text.split()))


def test_the_readme_has_the_form_that_the_script_writes():
    """Its words are those of the code; its numbers are of runs that no test makes."""
    found = [line for line in between(README.read_text("utf-8")).splitlines() if line]
    scores = {"subcategory": {"heldout": SCORE}, "yesno": {"heldout": SCORE}, "choice": {"heldout": SCORE}}
    asked = METRICS["questions"]
    order = {"category": asked["category"], "subcategory": {}, "colour": asked["colour"]}
    questions = {**order, **scores, "name": asked["name"]}
    baselines = {key: METRICS["baselines"]["blur"] for key in ("blur", "blur_fine")} | METRICS["baselines"]
    written = markdown([{**METRICS, "questions": questions, "baselines": baselines}], [0]).splitlines()
    expected = [line for line in written if line]
    is_table = lambda line: line.startswith("|")  # noqa: E731
    assert words(re.sub(r"\(seeds? [\d, ]+\)", "(seed N)", found[0])) == words(expected[0])
    for one, two in zip(filter(is_table, found[1:]), filter(is_table, expected[1:]), strict=True):
        assert words(one) == words(two)
    said = [" ".join(line for line in lines if not is_table(line)) for lines in (found, expected)]
    assert words(said[0]) == words(said[1])
