"""What several commands read from their options."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.commands.generate import parser
from vargpt_lightning.commands.options import generation_settings
from vargpt_lightning.inference.load import load_run


def test_options_reach_the_sampler(finished_run: Path) -> None:
    run = load_run(finished_run)
    plain = generation_settings(run, parser().parse_args(["run", "prompt"]))
    assert plain.visual is not None
    assert (plain.visual.top_k, plain.visual.top_p, plain.visual.cfg, plain.temperature) == (900, 0.95, 1.5, 0.0)
    words = "run prompt --top-k 5 --top-p 0.5 --cfg 3 --temperature 0.7 --text-temperature 0.2 --max-tokens 9 --seed 4"
    given = generation_settings(run, parser().parse_args(words.split()))
    assert given.visual is not None
    assert (given.visual.top_k, given.visual.top_p, given.visual.cfg, given.visual.temperature) == (5, 0.5, 3.0, 0.7)
    assert (given.temperature, given.max_new_tokens, given.seed) == (0.2, 9, 4)
    greedy = generation_settings(run, parser().parse_args(["run", "prompt", "--temperature", "0"]))
    assert greedy.visual is not None and greedy.visual.greedy
