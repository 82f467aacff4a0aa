"""What several commands read from their options."""

from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.commands import evaluate
from vargpt_lightning.commands.generate import parser
from vargpt_lightning.commands.options import benchmark_settings
from vargpt_lightning.inference.changed_settings import generation_settings
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


def test_parts_of_the_sampler_are_told_of_where_they_change_nothing(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(finished_run)
    words = ["run", "prompt", "--part", "guided_scales stop=2", "--part", "spatial beta=0"]
    given = generation_settings(run, parser().parse_args(words))
    assert given.visual is not None
    assert given.visual.parts == {"guided_scales": {"stop": 2}, "spatial": {"beta": 0}}
    assert capsys.readouterr().err == "--part spatial: changes nothing here: beta is 0\n"
    for part, told in (
        ("guided_scals", r"--part: part of a sampler: 'guided_scals'; .*did you mean 'guided_scales'"),
        ("weights values=[1]", r"--part: parts.weights.values: got 1 values, expected one for each of the 3 scales"),
        (f"autoguidance model={finished_run}#pretrain", r"--part: parts: .*cannot draw with this model"),
    ):
        with pytest.raises(UserError, match=told):
            generation_settings(run, parser().parse_args(["run", "prompt", "--part", part]))


@pytest.mark.parametrize("size", ["²", "9" * 5000, "0", "-3", "many"])
def test_a_batch_size_is_a_number_or_auto(size: str) -> None:
    words = ["run", "--benchmarks", "pope", f"--batch-size={size}"]
    with pytest.raises(UserError, match=r"--batch-size: .*expected a whole number, 1 or more, or auto"):
        benchmark_settings(evaluate.parser().parse_args(words))
    for given, expected in (("auto", "auto"), ("12", 12)):
        settings = benchmark_settings(evaluate.parser().parse_args([*words[:3], "--batch-size", given]))
        assert settings.batch_size == expected
