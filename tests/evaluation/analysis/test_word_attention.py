"""A drawing's attention to words: the words are whole, the shares add up, and the drawing is the one that is made."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.untrained import text_tokenizer
from vargpt_lightning.evaluation.analysis.word_attention import (
    PICTURE,
    draw_with_attention,
    map_figure,
    scale_figure,
    word_spans,
)
from vargpt_lightning.inference.load import load_run

REQUEST = "Please draw a shamrock."


def test_tokens_are_joined_to_words() -> None:
    tokens = text_tokenizer()
    ids = [tokens.bos_id, *tokens.encode("USER: Größe, née"), tokens.image_gen_start_id]
    spans = word_spans(ids, tokens)
    assert [word for word, _, _ in spans] == ["<s>", "USER:", "Größe,", "née", "<image_gen_start>"]
    bounds = [place for _, first, last in spans for place in (first, last)]
    assert bounds[0] == 0 and bounds[-1] == len(ids) and bounds[1:-1:2] == bounds[2::2], "every token is in one word"


def test_a_drawing_comes_with_its_attention(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    script(" Here:*")
    found = draw_with_attention(run, REQUEST, seed=3)
    assert found.words == (
        "<s>",
        "USER:",
        "Please",
        "draw",
        "a",
        "shamrock.",
        "ASSISTANT:",
        "Here:",
        "<image_gen_start>",
    )
    assert found.image.tobytes() == run.ask(REQUEST, seed=3).pictures[0].image.tobytes()
    assert len(found.scales) == 3 and found.scales[-1].tobytes() == found.image.tobytes()
    table = found.by_scale()
    assert list(table.columns) == [*found.words, PICTURE] and list(table.index) == ["1×1", "2×2", "4×4"]
    assert (table.to_numpy() > 0).all() and abs(table.sum(axis=1) - 1).max() < 1e-5
    map_ss = found.map(5)
    assert map_ss.shape == (4, 4) and torch.isclose(map_ss.mean(), torch.tensor(table.iloc[2, 5]).float())
    assert "layer 1" in scale_figure(found, 0).axes[0].get_title(loc="left")
    assert len([axes for axes in map_figure(found, [4, 5]).axes if axes.images]) == 3


def test_a_model_that_would_not_draw_is_made_to(finished_run: Path, script) -> None:
    script("No.")
    found = draw_with_attention(load_run(finished_run), REQUEST)
    assert found.words[-2:] == ("ASSISTANT:", "<image_gen_start>")
