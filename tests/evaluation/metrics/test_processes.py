"""Two processes find what one does, also where one of them has seen nothing of a side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_ranks, said
from vargpt_lightning.evaluation.metrics import (
    CLIPMaximumMeanDiscrepancy,
    CLIPScore,
    DensityCoverage,
    EfficientNetKernelDistance,
    FrechetInceptionDistance,
    Given,
    IdentificationRate,
    InceptionScore,
    KernelInceptionDistance,
    PrecisionRecall,
)


def features() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(40, 6) * 0.7 + 0.2, torch.randn(30, 6)


def metrics() -> dict[str, Any]:
    given = Given(6)
    two_sided = [
        FrechetInceptionDistance(given),
        KernelInceptionDistance(given, subset_size=20),
        PrecisionRecall(given),
        EfficientNetKernelDistance(given),
        CLIPMaximumMeanDiscrepancy(given),
        DensityCoverage(given),
    ]
    others = [InceptionScore(given, splits=4), IdentificationRate(features()[1], given), CLIPScore()]
    return {type(metric).__name__: metric for metric in (*two_sided, *others)}


def measured(part: slice, real: bool) -> dict[str, tuple[dict[str, float], float]]:
    """The figures and the value of each metric, of drawn pictures of a part, and of real ones or none."""
    drawn, others = features()
    found = {}
    for name, metric in metrics().items():
        mine = drawn[part]
        if name == "InceptionScore":
            metric.update(mine)
        elif name == "IdentificationRate":
            metric.update(mine, [place % 30 for place in range(40)][part], missing=1)
        elif name == "CLIPScore":
            metric.add(mine[:, 0].double(), int(part.start or 0))
        else:
            metric.update(mine, real=False)
            if real:
                metric.update(others, real=True)
        found[name] = (metric.compute_all(), metric.compute().item())
    return found


def in_a_process(out: str) -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    torch.save(measured((slice(0, 25), slice(25, 40))[rank], rank == 1), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", in_a_process, str(tmp_path)) == [0, 0], said(tmp_path / "log", 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    one = measured(slice(0, 40), True)
    one["IdentificationRate"][0]["n"] += 1  # each process has one more that brought no picture
    for name in ("rate_1", "rate_5"):
        one["IdentificationRate"][0][name] *= 41 / 42
    one["IdentificationRate"] = (one["IdentificationRate"][0], one["IdentificationRate"][0]["rate_1"])
    one["CLIPScore"][0]["clip_truncated"] = 25
    assert first.keys() == one.keys() and len(one) == 9
    for name, (figures, value) in one.items():
        assert first[name][0] == {key: pytest.approx(number, rel=1e-9) for key, number in figures.items()}, name
        assert first[name][1] == pytest.approx(value, rel=1e-9), name


def without_sync(out: str) -> None:
    dist.init_process_group("gloo")
    metric = CLIPScore(sync_on_compute=False)
    metric.add([float(os.environ["RANK"])])
    assert metric.compute().item() == metric.compute_all()["clip"] == float(os.environ["RANK"])
    dist.destroy_process_group()


def test_a_metric_may_be_of_one_process_alone(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "log", without_sync, str(tmp_path)) == [0, 0], said(tmp_path / "log", 2)
