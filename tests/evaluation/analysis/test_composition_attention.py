"""Attention to the words of a combination: they are found where they stand, and shares are those of all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from vargpt_lightning.evaluation.analysis.composition_attention import (
    NamedDrawing,
    attention_figure,
    attention_table,
    draw_combinations,
)
from vargpt_lightning.evaluation.analysis.word_attention import WordAttention
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.utils.errors import UserError

WORDS = ("<s>", "USER:", "Draw", "a", "red", "puzzle", "piece,", "please.", "ASSISTANT:", "A", "Puzzle", "piece:")


def named(*, layers: int = 2) -> NamedDrawing:
    """A drawing at two scales whose second layer attends twice as much as its first, to each word by its place."""
    places_W = torch.arange(len(WORDS)) / 1000
    weights_NHLW = torch.stack([(layer + 1) * places_W.expand(1, 5, -1) for layer in range(layers)])
    image = Image.new("RGB", (8, 8))
    found = WordAttention(image, (image, image), WORDS, weights_NHLW, ScaleSchedule((1, 2)), prompt_words=9)
    return NamedDrawing("red", "puzzle piece", "seen", found)


def test_words_are_found_where_they_are_said() -> None:
    drawing = named()
    assert drawing.places("colour, request") == [4] and drawing.places("shape, request") == [5, 6]
    assert drawing.places("colour, answer") == [] and drawing.places("shape, answer") == [10, 11]


def test_shares_are_those_of_all_words_of_a_name() -> None:
    table = attention_table([named()])
    assert len(table) == 2 * 2 * 3, "two layers, two scales, three of the four roles"
    shares = table.set_index(["layer", "scale", "role"])["share"]
    assert shares[1, "1×1", "colour, request"] == pytest.approx(0.004)
    assert shares[2, "2×2", "shape, request"] == pytest.approx(2 * (0.005 + 0.006))
    assert shares[1, "2×2", "shape, answer"] == pytest.approx(0.010 + 0.011)


def test_the_figure_says_which_words_were_not_said() -> None:
    request, _, not_said, answer = attention_figure([named(), named()]).axes
    assert request.get_title(loc="left") == "colour, request (2 drawings)"
    assert [text.get_text() for text in request.texts] == ["0.4", "0.4", "0.8", "0.8"]
    assert [text.get_text() for text in not_said.texts] == ["not said"]
    assert [text.get_text() for text in answer.texts] == ["2.1", "2.1", "4.2", "4.2"]


def test_combinations_are_drawn_again(finished_run: Path, script) -> None:
    rows = [
        {"kind": kind, "split": split, "prompt": f"Please draw a {name}.", "scene": {"things": [name.split()[::-1]]}}
        for kind, split, name in [
            ("colour", "unseen", "red kite"),
            ("count", "seen", "red star"),
            ("colour", "seen", "blue shamrock"),
            ("colour", "seen", "pink apple"),
        ]
    ]
    script(" A shamrock:*")
    run = load_run(finished_run)
    drawn = draw_combinations(run, pd.DataFrame(rows), each=1)
    assert {(each.colour, each.shape, each.split) for each in drawn} == {
        ("blue", "shamrock", "seen"),
        ("red", "kite", "unseen"),
    }
    seen = next(each for each in drawn if each.split == "seen")
    words, count = seen.attention.words, seen.attention.prompt_words
    assert words[count - 1] == "ASSISTANT:" and words[count:] == ("A", "shamrock:", "<image_gen_start>")
    assert seen.places("shape, request") == [words.index("shamrock.")]
    assert seen.places("shape, answer") == [words.index("shamrock:")]
    with pytest.raises(UserError, match="no request for one thing in a colour"):
        draw_combinations(run, pd.DataFrame(rows[1:2]))
