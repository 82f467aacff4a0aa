"""CMMD, density and coverage: the formulas written out on whole tables of distances, and sets that can be seen through.

`python -m tests.benchmarks.agree_metrics` compares them with the authors' own code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.evaluation.pictures import write_open_clip
from vargpt_lightning.evaluation.features.clip import open_clip_model
from vargpt_lightning.evaluation.metrics import (
    ClipFeatures,
    CLIPMaximumMeanDiscrepancy,
    DensityCoverage,
    Given,
    cmmd,
    density_coverage,
)
from vargpt_lightning.utils.errors import UserError


def features(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(70, 5) + 0.4, torch.randn(90, 5)


def table(x_ND: torch.Tensor, y_MD: torch.Tensor) -> np.ndarray:
    return np.sqrt(((x_ND.double().numpy()[:, None] - y_MD.double().numpy()[None]) ** 2).sum(-1))


def test_cmmd_is_the_biased_discrepancy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmmd, "BLOCK", 32)
    drawn, real = features()
    kernels = [np.exp(-(table(*pair) ** 2) / 200).mean() for pair in ((drawn, drawn), (real, real), (drawn, real))]
    metric = CLIPMaximumMeanDiscrepancy(Given(5))
    metric.update(drawn[:30], real=False)
    metric.update(drawn[30:], real=False)
    metric.update(real, real=True)
    assert metric.compute().item() == pytest.approx(1000 * (kernels[0] + kernels[1] - 2 * kernels[2]), rel=1e-9)
    metric.reset()
    metric.update(real, real=False)
    metric.update(real, real=True)
    assert metric.compute().item() == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="CMMD of 0 drawn and 90 real pictures"):
        cmmd.gaussian_discrepancy(drawn[:0], real)


def test_density_and_coverage_count_neighbourhoods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_coverage, "BLOCK", 32)
    drawn, real = features(1)
    radii = np.sort(table(real, real), axis=1)[:, 5]
    inside = table(real, drawn) < radii[:, None]
    metric = DensityCoverage(Given(5))
    metric.update(drawn, real=False)
    metric.update(real, real=True)
    assert metric.compute_all() == {"density": inside.sum() / 350, "coverage": inside.any(axis=1).mean()}
    assert metric.compute().item() == metric.compute_all()["density"]
    with pytest.raises(UserError, match="with 5 neighbours of 5 real and 70 drawn pictures"):
        density_coverage.density_coverage(drawn, real[:5])


def test_a_line_of_real_pictures_with_all_drawn_ones_at_its_end() -> None:
    drawn, real = torch.zeros(20, 1), torch.arange(20)[:, None].float()
    found = density_coverage.density_coverage(drawn, real, neighbours=3)
    assert found == {"density": 2 / 3, "coverage": 0.1}, "the real ones at 0 and 1 have them near, that at 2 just not"


def test_clip_features_are_unit_vectors(tmp_path: object) -> None:
    name, weights = write_open_clip(tmp_path)  # type: ignore[arg-type]
    model = ClipFeatures(open_clip_model(name, str(weights)))
    pictures = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    metric = CLIPMaximumMeanDiscrepancy(model)
    metric.update(pictures, real=False)
    metric.update(255 - pictures, real=True)
    assert metric.compute().item() > 0
    torch.testing.assert_close(model(pictures).norm(dim=1), torch.ones(4))
    assert model(pictures[:0]).shape == (0, model.size) and model.about["library"] == "open_clip"
