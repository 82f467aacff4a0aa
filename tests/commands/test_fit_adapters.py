"""A stage with adapters, trained and merged, in an experiment that says what its data are like."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.commands.ends import Place, run
from tests.tiny import assert_same_weights, tiny_config, tiny_tree, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.results import RunFolder

Tree = dict[str, Any]


def test_a_stage_with_adapters_leaves_plain_weights_also_after_a_kill(
    tiny_data: Tree, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = tiny_tree(tiny_data, tmp_path / "runs")
    lora = {"rank": 2, "alpha": 4, "dropout": 0.1, "targets": ["q_proj", "up_proj"], "also": ["lm_head"]}
    base = tree["stages"][1] | {"lora": lora, "ema": 0.5}
    base |= {"train": ["language_model", "vision_projector"], "data": {"questions": 1}, "decoder_alone": False}
    tree["stages"] = [base | {"batch_size": 2, "accumulate": 1}]
    tree["plan"] = {"corpora": {"questions": {"samples": 9, "text": 12, "seen": 1}}}
    file = write_experiment(tmp_path / "adapters.yaml", tree)
    command = ["fit", "-c", str(file), "--trainer.samples", "0"]
    assert main(command) == 0
    (stage,) = RunFolder(tmp_path / "runs" / "tiny").stages()
    weights = load_file(stage.weights)
    assert set(weights) == set(VARGPT(tiny_config()).state_dict()), "no names of adapters are left"
    rates = [row.value for row in stage.metrics() if row.name == "throughput/model_tflops_per_s"]
    assert rates and all(rate > 0 for rate in rates)
    again = [*command, "--run.name", "again"]
    assert run(again, tmp_path / "log", Place("base", "batch", 3), signal.SIGKILL) == -signal.SIGKILL
    assert main(again) == 0
    assert "goes on after step 3 of 6" in capfd.readouterr().out
    assert_same_weights(tmp_path / "runs/tiny", tmp_path / "runs/again")


def test_planning_leaves_the_random_numbers_alone() -> None:
    from vargpt_lightning.modules.stage import Stage
    from vargpt_lightning.planning.settings import CorpusShape, PlanConfig
    from vargpt_lightning.planning.stage_plan import model_flops_per_sample

    settings = PlanConfig(corpora={"drawings": CorpusShape(samples=9, text=12, drawn=1)})
    stage = Stage("draw", ["visual_decoder"], {"drawings": 1}, steps=2, head="generation")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert model_flops_per_sample(tiny_config(), stage, settings) > 0
    assert torch.equal(torch.rand(2), expected)
