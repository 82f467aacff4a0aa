"""A stage with adapters, trained and merged, in an experiment that says what its data are like."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ends import Place, run
from tests.tiny import assert_same_weights, tiny_config, tiny_tree, write_experiment
from vargpt_lightning.callbacks.batch_rng import seed_everything_at
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.cli import main
from vargpt_lightning.runs.folder import RunFolder

Tree = dict[str, Any]


def test_a_stage_with_adapters_leaves_plain_weights_and_its_utilisation(
    tiny_data: Tree, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Frozen weights are in few bits meanwhile, and written as they were; a kill on the way changes nothing."""
    tree = tiny_tree(tiny_data, tmp_path / "runs")
    base = tree["stages"][1] | {"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}, "ema": None}
    base["lora"]["targets"] = ["q_proj", "up_proj"]
    base |= {"train": ["language_model", "vision_projector"], "data": {"questions": 1}, "decoder_alone": False}
    base |= {"frozen_bits": {"language_model": 4, "visual_decoder": 8}}
    tree["stages"] = [base | {"batch_size": 2, "accumulate": 1}]
    tree["plan"] = {"corpora": {"questions": {"samples": 9, "text": 12, "seen": 1}}}
    file = write_experiment(tmp_path / "adapters.yaml", tree)
    words = ["fit", "-c", str(file), "--trainer.samples", "0", "--trainer.validate", "0"]
    assert main(words) == 0
    (stage,) = RunFolder(tmp_path / "runs" / "tiny").stages()
    weights = load_file(stage.weights)
    seed_everything_at(0, "weights")
    first = VARGPT(tiny_config()).state_dict()
    assert set(weights) == set(first), "no names of adapters are left"
    changed = {name for name, value in first.items() if not torch.equal(value, weights[name])}
    adapted = {name for name in first if "q_proj.weight" in name or "up_proj.weight" in name}
    adapted = {name for name in adapted if name.startswith("language_model")}
    assert changed == adapted | {name for name in first if name.startswith("vision_projector")}
    for name in adapted:
        assert torch.linalg.matrix_rank(weights[name] - first[name], rtol=1e-3) <= 2, "what was added is the adapter's"
    rates = [row.value for row in stage.metrics() if row.name == "throughput/model_tflops_per_s"]
    assert rates and all(rate > 0 for rate in rates)

    again = [*words, "--run.name", "killed"]
    assert run(again, tmp_path / "log", Place("base", "batch", 3), signal.SIGKILL) == -signal.SIGKILL
    checkpoint = torch.load(tmp_path / "runs/killed/stages/01-base/last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "language_model" in name and "k_proj" in name]
    assert main(again) == 0
    assert "resumes after step 3 of 6" in capfd.readouterr().out
    assert_same_weights(tmp_path / "runs" / "tiny", tmp_path / "runs" / "killed")


def test_planning_leaves_the_random_numbers_alone() -> None:
    from vargpt_lightning.planning.stage_plan import model_flops_per_sample
    from vargpt_lightning.recipe.plan import CorpusShape, PlanConfig
    from vargpt_lightning.recipe.stage import Stage

    settings = PlanConfig(corpora={"drawings": CorpusShape(samples=9, text=12, drawn=1)})
    stage = Stage("draw", ["visual_decoder"], {"drawings": 1}, steps=2, head="generation")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert model_flops_per_sample(tiny_config(), stage, settings) > 0
    assert torch.equal(torch.rand(2), expected)
