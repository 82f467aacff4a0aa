"""What several commands read from their options."""

from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.commands import evaluate
from vargpt_lightning.commands.generate import parser
from vargpt_lightning.commands.options import benchmark_settings, generation_settings
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.utils.errors import UserError


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


@pytest.mark.parametrize("size", ["²", "9" * 5000, "0", "-3", "many"])
def test_a_batch_size_is_a_number_or_auto(size: str) -> None:
    words = ["run", "--benchmarks", "pope", f"--batch-size={size}"]
    with pytest.raises(UserError, match=r"--batch-size: .*expected a whole number, 1 or more, or auto"):
        benchmark_settings(evaluate.parser().parse_args(words))
    for given, expected in (("auto", "auto"), ("12", 12)):
        settings = benchmark_settings(evaluate.parser().parse_args([*words[:3], "--batch-size", given]))
        assert settings.batch_size == expected
