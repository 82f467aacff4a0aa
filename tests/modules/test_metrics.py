"""What a stage counts between two rows: in one process, in two that have seen different things, in no checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torchmetrics import Metric

from tests.ranks import run_ranks, said
from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.quantizer import MultiScaleQuantizer
from vargpt_lightning.modules.metrics import CodebookUsage, NamedMeans
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.training.data.stage_data import StageData

BATCHES: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"text": torch.tensor(1.1)}, {"text": 30}),
    ({"text": 2.3, "image": torch.tensor(0.7)}, {"text": 11, "image": 9}),
    ({}, {}),
    ({"image": torch.tensor(1.9)}, {"image": 7}),
]


def test_means_are_weighted_and_names_without_a_value_left_out() -> None:
    means = NamedMeans(["image", "text", "norm"])
    for values, weights in BATCHES:
        means.update(values, weights)
    found = means.compute()
    assert list(found) == ["image", "text"]
    assert found["text"].item() == pytest.approx((30 * 1.1 + 11 * 2.3) / 41, rel=1e-6)
    assert found["image"].item() == pytest.approx((9 * 0.7 + 7 * 1.9) / 16, rel=1e-6)
    means.reset()
    means.update(*BATCHES[0])
    assert {name: mean.item() for name, mean in means.compute().items()} == {"text": pytest.approx(1.1)}


def test_a_batchs_own_means_come_from_forward_and_count_once() -> None:
    means = NamedMeans(["image", "text"])
    own = [means(values, weights) for values, weights in BATCHES]
    assert own[1]["text"].item() == pytest.approx(2.3) and own[1]["image"].item() == pytest.approx(0.7)
    assert own[2] == {}
    assert means.compute()["text"].item() == pytest.approx((30 * 1.1 + 11 * 2.3) / 41, rel=1e-6)


def test_one_names_nan_leaves_the_others() -> None:
    means = NamedMeans(["a", "b"])
    means.update({"a": torch.tensor(float("nan")), "b": torch.tensor(2.0)}, {"a": 1, "b": 1})
    means.update({"b": torch.tensor(4.0)}, {"b": 1})
    assert means.compute()["a"].isnan() and means.compute()["b"] == 3


def test_sums_stay_exact_in_a_module_of_another_type() -> None:
    """As `trainer.precision=bf16-true` makes of a module: 16 bits would count to 256."""
    holder = torch.nn.Module()
    holder.means, holder.usage = NamedMeans(["a"]), CodebookUsage(1)
    holder.means.update({"a": torch.tensor(1.0001)}, {"a": 1000})
    holder.to(torch.bfloat16).half()
    holder.means.update({"a": torch.tensor(1.0001)}, {"a": 1})
    assert holder.means.sums.dtype == torch.float32 and holder.means.compute()["a"].item() == pytest.approx(1.0001)


def test_usage_is_that_of_the_quantizer() -> None:
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(ScaleSchedule([1, 2]), 4, 24)
    for _ in range(3):
        quantizer(torch.randn(2, 4, 2, 2))
    usage = CodebookUsage(2)
    usage.update(quantizer.codes_in_use())
    assert usage.compute().tolist() == quantizer.usage_per_scale() and 0 < usage.compute()[1] < 100


def gathered(out: str) -> None:
    """The means of two processes, of which one has had no pictures."""
    import os

    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    means, usage = NamedMeans(["image", "text", "norm"]), CodebookUsage(2)
    for values, weights in (BATCHES[:1], BATCHES[1:])[rank]:
        means.update(values, weights)
    usage.update(torch.tensor([[True, False], [True, bool(rank)]]))
    found = {name: mean.item() for name, mean in means.compute().items()}
    torch.save((found, usage.compute().tolist(), means.sums.tolist()), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_count_as_one(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", gathered, str(tmp_path)) == [0, 0], said(tmp_path / "log", 2)
    means = NamedMeans(["image", "text", "norm"])
    for values, weights in BATCHES:
        means.update(values, weights)
    wanted = {name: pytest.approx(mean.item(), rel=1e-6) for name, mean in means.compute().items()}
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert results[0][:2] == results[1][:2] == (wanted, [50.0, 75.0])
    assert results[0][2] != results[1][2], "each goes on with its own"


def test_checkpoints_and_optimizers_know_nothing_of_metrics(stage_data: StageData, tmp_path: Path) -> None:
    for name in ("tokenizer", "base"):
        module = VARGPTModule(tiny_model(), tiny_stage(name), 2)
        metrics = [each for each in module.modules() if isinstance(each, Metric)]
        assert len(metrics) == (2 if name == "tokenizer" else 1)
        assert not [tensor for each in metrics for tensor in (*each.parameters(), *each.buffers())]
        assert all(key.startswith("vargpt.") for key in module.state_dict())
        checkpoint = LastCheckpoint(tmp_path / f"{name}.ckpt", seconds=0)
        fit_stage(stage_data, tiny_model(), tiny_stage(name), 2, [checkpoint])
        assert all(key.startswith("vargpt.") for key in torch.load(checkpoint.path)["state_dict"])
