"""FID, KID, Inception Score, precision and recall equal the command's figures, torch-fidelity's and torchmetrics'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance as TheirFID
from torchmetrics.image.inception import InceptionScore as TheirScore
from torchmetrics.image.kid import KernelInceptionDistance as TheirKID

from tests.evaluation.metrics.conftest import Sets
from vargpt_lightning.evaluation.features.feature_sums import FeatureSums
from vargpt_lightning.evaluation.images.measures import MeasureSettings, measure
from vargpt_lightning.evaluation.metrics import (
    FidelityFeatures,
    FrechetInceptionDistance,
    Given,
    InceptionScore,
    KernelInceptionDistance,
    PrecisionRecall,
)
from vargpt_lightning.evaluation.metrics.base import SetMetric
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def network(weights: Path) -> FidelityFeatures:
    return FidelityFeatures("64", weights)


@pytest.fixture(scope="module")
def logits(weights: Path) -> FidelityFeatures:
    return FidelityFeatures("logits_unbiased", weights)


def counted(metric: Any, sets: Sets, size: int = 5) -> Any:
    """A metric that has seen both sets, batch by batch."""
    for real, pictures in ((False, sets.drawn), (True, sets.real)):
        for batch in pictures.split(size):
            metric.update(batch, real=real)
    return metric


@pytest.fixture(scope="module")
def commands(weights: Path, sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What `vargpt evaluate-images` says of the same pictures."""
    names = ("fid", "kid", "prc", "isc")
    rules: dict[str, Any] = {"kid_subset_size": 8, "isc_splits": 2, "batch_size": 5, "allow": ("few_samples",)}
    settings = MeasureSettings(names, layer="64", inception_weights=weights, **rules)
    out = tmp_path_factory.mktemp("measured")
    return measure(sets.folders[0], out, settings, reference=sets.folders[1])["metrics"]


@pytest.fixture(scope="module")
def librarys(weights: Path, sets: Sets) -> dict[str, float]:
    """What torch-fidelity says of the same files."""
    import torch_fidelity

    layers = {f"feature_layer_{name}": "64" for name in ("fid", "kid", "prc")}
    quiet = {"cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True}
    return torch_fidelity.calculate_metrics(
        input1=str(sets.folders[0]), input2=str(sets.folders[1]), feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights), fid=True, kid=True, prc=True, isc=True, kid_subset_size=8,
        isc_splits=2, batch_size=5, **layers, **quiet,
    )  # fmt: skip


def test_figures_equal_the_commands_and_the_librarys(
    network: FidelityFeatures,
    logits: FidelityFeatures,
    sets: Sets,
    commands: dict[str, float],
    librarys: dict[str, float],
) -> None:
    fid = counted(FrechetInceptionDistance(network), sets)
    kid = counted(KernelInceptionDistance(network, subset_size=8), sets)
    prc = counted(PrecisionRecall(network), sets)
    isc = InceptionScore(logits, splits=2)
    for batch in sets.drawn.split(5):
        isc.update(batch)
    figures = fid.compute_all() | kid.compute_all() | prc.compute_all() | isc.compute_all()
    # batches are other ones than the command's, and a convolution rounds by its batch
    close = {name: pytest.approx(value, rel=1e-6) for name, value in commands.items()}
    assert figures == close
    theirs = {
        "fid": librarys["frechet_inception_distance"],
        "kid": librarys["kernel_inception_distance_mean"],
        "kid_std": librarys["kernel_inception_distance_std"],
        "isc": librarys["inception_score_mean"],
        "isc_std": librarys["inception_score_std"],
        **{name: librarys[name] for name in ("precision", "recall", "f_score")},
    }
    assert figures == {name: pytest.approx(value, rel=1e-6) for name, value in theirs.items()}
    assert figures["fid"] > 0.01 and 0 < figures["precision"] < 1 and figures["isc"] > 1.001, "sets that differ"
    for metric, name in ((fid, "fid"), (kid, "kid"), (prc, "f_score"), (isc, "isc")):
        value = metric.compute()
        assert value.shape == () and value.dtype == torch.float64 and value.item() == figures[name]


def test_figures_equal_torchmetrics_on_the_same_pictures(weights: Path, network: FidelityFeatures, sets: Sets) -> None:
    """Its resize without antialiasing is torch-fidelity's; subsets and splits it draws by torch's own numbers."""
    their: dict[str, Any] = {"feature": 64, "feature_extractor_weights_path": str(weights), "antialias": False}
    fid, kid = TheirFID(**their), TheirKID(feature=fid_network(their), subsets=1, subset_size=11)
    fid.set_dtype(torch.float64)
    counted(fid, sets)
    ours = counted(FrechetInceptionDistance(network), sets).compute()
    assert ours.item() == pytest.approx(fid.compute().item(), rel=1e-5)
    same = Sets(sets.folders, sets.drawn, sets.real[:11])
    ours = counted(KernelInceptionDistance(network, subsets=1, subset_size=11), same).compute()
    assert ours.item() == pytest.approx(counted(kid, same).compute()[0].item(), rel=1e-3)  # it sums in single precision


def fid_network(their: dict[str, Any]) -> torch.nn.Module:
    """torchmetrics' own network, which its KID does not let be set to this rule of resizing."""
    return TheirFID(**their).inception


def test_the_inception_score_equals_torchmetrics(weights: Path, logits: FidelityFeatures, sets: Sets) -> None:
    their = TheirFID(feature=64, feature_extractor_weights_path=str(weights), antialias=False).inception
    their = type(their)("inception-v3-compat", ["logits_unbiased"], str(weights), antialias=False)
    score = TheirScore(feature=their, splits=1)
    ours = InceptionScore(logits, splits=1)
    score.update(sets.drawn)
    ours.update(sets.drawn)
    assert ours.compute().item() == pytest.approx(score.compute()[0].item(), rel=1e-5)


def test_floats_of_a_range_are_the_bytes_they_are_saved_as(network: FidelityFeatures, sets: Sets) -> None:
    whole = counted(FrechetInceptionDistance(network), sets).compute()
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        metric = FrechetInceptionDistance(network, value_range=(low, high))
        for real, pictures in ((False, sets.drawn), (True, sets.real)):
            floats = low + pictures / 255 * (high - low)
            for batch in floats.split(5):
                metric.update(batch + 0.4 / 255 * (high - low), real=real)
        assert metric.compute() == whole
    with pytest.raises(UserError, match=r"shape \(3, 32, 32\); expected \(B, 3, H, W\)"):
        metric.update(sets.drawn[0], real=True)
    with pytest.raises(UserError, match=r"torch.int64 from -1.0 to 1.0; expected uint8, or floats"):
        metric.update(sets.drawn.long(), real=True)
    with pytest.raises(UserError, match="NaN or infinity"):
        metric.update(floats.log(), real=True)


@pytest.mark.parametrize("variant", ["clean", "adm"])
def test_a_rule_of_resizing_is_the_commands(variant: str, weights: Path, sets: Sets, tmp_path: Path) -> None:
    settings = MeasureSettings(
        ("fid",), layer="64", variant=variant, inception_weights=weights, allow=("few_samples",), batch_size=13
    )
    command = measure(sets.folders[0], tmp_path, settings, reference=sets.folders[1])["metrics"]["fid"]
    metric = counted(FrechetInceptionDistance(FidelityFeatures("64", weights, variant=variant)), sets, 13)
    assert metric.compute().item() == pytest.approx(command, rel=1e-6)


def test_a_reference_stands_for_the_real_side(
    network: FidelityFeatures, weights: Path, sets: Sets, tmp_path: Path
) -> None:
    sums = FeatureSums.empty(64, network.about)
    sums.add(network(sets.real))
    sums.save(tmp_path / "real.npz")
    metric = FrechetInceptionDistance(network, tmp_path / "real.npz")
    metric.update(sets.drawn, real=False)
    assert metric.compute().item() == pytest.approx(
        counted(FrechetInceptionDistance(network), sets).compute().item(), rel=1e-6
    )
    with pytest.raises(UserError, match="real pictures beside a reference"):
        metric.update(sets.real, real=True)
    other = FrechetInceptionDistance(FidelityFeatures("64", weights, variant="clean"), tmp_path / "real.npz")
    other.update(sets.drawn, real=False)
    with pytest.raises(UserError, match="statistics with variant "):
        other.compute()


def made() -> list[tuple[SetMetric, torch.Tensor, torch.Tensor]]:
    """Each metric with features of drawn and real pictures."""
    torch.manual_seed(0)
    drawn, real = torch.randn(40, 6) * 0.7 + 0.2, torch.randn(30, 6)
    given = Given(6)
    metrics = [FrechetInceptionDistance(given), KernelInceptionDistance(given, subset_size=20), PrecisionRecall(given)]
    return [(metric, drawn, real) for metric in metrics]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_update_forward_and_reset(place: int) -> None:
    metric, drawn, real = made()[place]
    assert metric.full_state_update is False and metric.is_differentiable is False
    assert metric.higher_is_better is (place == 2)
    for batch in drawn.split(15):
        assert metric(batch, real=False).isnan(), "a batch has no distance of its own"
    metric.update(real, real=True)
    first = metric.compute()
    metric.reset()
    with pytest.raises((UserError, RuntimeError)):
        metric.compute()
    metric.reset()
    metric.update(real, real=True)
    metric.update(drawn[:20], real=False)
    assert metric.compute() != first
    metric.update(drawn[20:], real=False)
    assert metric.compute().item() == pytest.approx(first.item(), rel=1e-9)


def test_frechets_memory_does_not_grow_with_the_pictures() -> None:
    metric = FrechetInceptionDistance(Given(6))
    sizes = set()
    for _ in range(3):
        metric.update(torch.randn(50, 6), real=False)
        sizes.add(sum(state.numel() for state in metric.metric_state.values()))  # type: ignore[union-attr]
    assert sizes == {2 * (1 + 6 + 36)}


def test_precision_and_recall_are_figures_to_choose() -> None:
    metric, drawn, real = made()[2]
    metric.update(drawn, real=False)
    metric.update(real, real=True)
    for name in ("precision", "recall", "f_score"):
        chosen = PrecisionRecall(Given(6), figure=name)  # type: ignore[arg-type]
        chosen.update(drawn, real=False)
        chosen.update(real, real=True)
        assert chosen.compute().item() == metric.compute_all()[name]


def test_a_network_is_no_part_of_a_module(network: FidelityFeatures) -> None:
    holder = torch.nn.Module()
    holder.fid = FrechetInceptionDistance(network)
    assert not holder.state_dict() and not list(holder.parameters()) and not list(holder.buffers())
    holder.to(torch.bfloat16)
    assert holder.fid.drawn_outer.dtype == torch.float64
