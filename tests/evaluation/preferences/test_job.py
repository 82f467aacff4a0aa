"""Pairs of a system's own drawings: drawn, judged, counted and shown; gone on with after a stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.evaluation.base.protocols import Reply
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.preferences.job import make_pairs
from vargpt_lightning.evaluation.preferences.page import write_page
from vargpt_lightning.evaluation.preferences.pairs import PairRules
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl

PROMPTS = [Prompt(str(number), text) for number, text in enumerate(("Draw grey.", "Draw white.", "Draw nothing."))]


class Painter:
    """Draws a grey of its seed's; white it draws white, and nothing it does not draw."""

    name, digest, settings = "painter", "1", {}

    def __init__(self) -> None:
        self.asked: list[str] = []

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        self.asked += prompts
        return [self._one(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> Reply:
        if "nothing" in prompt:
            return Reply("No.")
        level = 255 if "white" in prompt else seed % 250
        return Reply("Here:", (Image.new("RGB", (8, 8), (level, level, level)),))


class Judge:
    """The mean of the first pixel, darker or lighter; stops after some calls."""

    def __init__(self, calls: int = 10**9) -> None:
        self.calls, self.scored = calls, 0

    def __call__(self, pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[float]:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.scored += len(pictures)
        return [picture.getpixel((0, 0))[0] / 255 for picture in pictures]


def made(out: Path, painter: Any, judge: Any, prompts: Sequence[Prompt] = PROMPTS, **more: Any) -> dict[str, Any]:
    judged, counts = make_pairs(painter, prompts, "brightness", lambda: judge, out, **{"count": 4} | more)
    assert write_page(out, judged, counts, "tiny").read_text("utf-8").count("<article") == counts["pairs"]
    return counts


def test_the_lightest_goes_beside_the_darkest(tmp_path: Path) -> None:
    counts = made(tmp_path, Painter(), Judge())
    wanted = {"prompts": 3, "asked": 12, "drawn": 8, "kept": 1, "tied": 1, "unsure": 0, "single": 1, "pairs": 1}
    assert {name: counts[name] for name in wanted} == wanted
    (row,) = json.loads((tmp_path / "pairs.json").read_text("utf-8"))
    assert row["conversations"] == [{"from": "human", "value": "Draw grey."}]
    assert row["chosen"] == {"from": "gpt", "value": "Here: <image_gen>"} == row["rejected"]
    levels = [Image.open(tmp_path / file).getpixel((0, 0))[0] for file in row["images"]]
    drawn = read_jsonl(tmp_path / "prompts.jsonl")[0]["drawings"]
    assert levels == [max(each["score"] for each in drawn) * 255, min(each["score"] for each in drawn) * 255]
    assert levels[0] > levels[1] and row["scores"] == [level / 255 for level in levels]
    assert read_json(tmp_path / "counts.json") == counts


def test_a_stopped_judge_goes_on_and_nothing_is_drawn_again(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", Painter(), Judge())
    many = [Prompt(str(number), f"Draw grey {number}.") for number in range(20)]
    first, painter = Judge(calls=1), Painter()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "stopped", painter, first, many)
    rows = tmp_path / "stopped" / "scores" / "brightness.jsonl"
    rows.write_text(rows.read_text("utf-8") + '{"id": "torn', "utf-8")
    second, again = Judge(), Painter()
    counts = made(tmp_path / "stopped", again, second, many)
    assert (first.scored, second.scored, len(painter.asked), again.asked) == (32, 48, 80, [])
    made(tmp_path / "unbroken", Painter(), Judge(), many)
    assert (tmp_path / "stopped/pairs.json").read_bytes() == (tmp_path / "unbroken/pairs.json").read_bytes()
    assert counts["pairs"] == 20 and whole["pairs"] == 1


def test_other_rules_pair_the_same_drawings_anew(tmp_path: Path) -> None:
    made(tmp_path, Painter(), Judge())
    painter, judge = Painter(), Judge()
    counts = made(tmp_path, painter, judge, rules=PairRules(each=2))
    assert (counts["pairs"], painter.asked, judge.scored) == (2, [], 0)
    assert [row["id"] for row in read_json(tmp_path / "pairs.json")] == ["0-0", "0-1"]


def test_what_cannot_make_pairs_is_told(tmp_path: Path) -> None:
    white = PROMPTS[1:2]
    with pytest.raises(UserError, match=r"'brightness' scored all drawings of each of 1 prompts alike; expected one"):
        made(tmp_path / "tied", Painter(), Judge(), white)
    with pytest.raises(UserError, match=r"painter drew no picture for 4 requests, such as 'Draw nothing.'; expected a"):
        made(tmp_path / "none", Painter(), Judge(), PROMPTS[2:])
    with pytest.raises(UserError, match=r"no pair of 3 prompts: 1 tied, 1 unsure, 1 single; expected .* more than 1$"):
        made(tmp_path / "unsure", Painter(), Judge(), rules=PairRules(margin=1))
    with pytest.raises(UserError, match=r"this system draws no pictures; expected one that does"):
        made(tmp_path / "words", object(), Judge())
    with pytest.raises(UserError, match=r"judge 'brightness': got nan for .*0.0.png, expected a number"):
        made(tmp_path / "nan", Painter(), lambda pictures, requests: [float("nan")] * len(pictures))
    with pytest.raises(UserError, match=r"judge 'brightness': got 1 scores, expected one for each of 8 drawings"):
        made(tmp_path / "one", Painter(), lambda pictures, requests: [1.0])
