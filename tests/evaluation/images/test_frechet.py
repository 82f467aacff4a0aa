"""FID, KID, Inception Score, precision and recall equal torch-fidelity's and torchmetrics' own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.pictures import in_library_order, write_inception, write_pictures
from vargpt_lightning.evaluation.features.feature_sums import FeatureSums, Moments, load_moments
from vargpt_lightning.evaluation.features.inception import FeatureExtractor
from vargpt_lightning.evaluation.images.adm_npz import write_adm
from vargpt_lightning.evaluation.images.distances import check_samples
from vargpt_lightning.evaluation.images.feature_store import measure_features
from vargpt_lightning.evaluation.images.measures import MeasureSettings, measure
from vargpt_lightning.evaluation.metrics.fid import frechet_distance, moments
from vargpt_lightning.evaluation.metrics.inception_score import inception_score
from vargpt_lightning.evaluation.metrics.kid import kernel_distance
from vargpt_lightning.evaluation.metrics.precision_recall import precision_recall
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two small sets, where it does not matter that they have fewer pictures than features."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "drawn", 9, seed=1)
    write_pictures(root / "real", 10, low=12, seed=2)
    return root / "drawn", root / "real"


def library(drawn: Path, real: Path, weights: Path, layer: str = "64", **settings: Any) -> dict[str, float]:
    """What torch-fidelity itself says."""
    import torch_fidelity

    layers = {f"feature_layer_{name}": layer for name in ("fid", "kid", "prc")}
    quiet = {"cuda": False, "verbose": False, "cache": False, "save_cpu_ram": True}
    where = {"input1": str(drawn), "input2": str(real), "feature_extractor_weights_path": str(weights)}
    return torch_fidelity.calculate_metrics(
        **where, **quiet, **layers, feature_extractor="inception-v3-compat", **settings
    )


def test_distances_equal_the_librarys_on_the_same_files(weights: Path, tmp_path: Path) -> None:
    """Two unequal sets, in number too."""
    folders = tmp_path / "drawn", tmp_path / "real"
    write_pictures(folders[0], 11, seed=1)
    write_pictures(folders[1], 13, low=12, seed=2)
    theirs = library(*folders, weights, fid=True, kid=True, prc=True, kid_subset_size=8, batch_size=5)
    settings = MeasureSettings(
        ("fid", "kid", "prc"),
        layer="64",
        inception_weights=weights,
        kid_subset_size=8,
        batch_size=5,
        allow=("few_samples",),
    )
    result = measure(folders[0], tmp_path, settings, reference=folders[1])
    ours = result["metrics"]
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours["kid_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    assert [ours[name] for name in ("precision", "recall", "f_score")] == [
        theirs[name] for name in ("precision", "recall", "f_score")
    ]
    assert ours["fid"] > 0.01 and 0 < ours["precision"] < 1, "sets that differ, but not wholly"
    assert result["n"] == 11 and result["marks"][2] == "counts_differ: fid of 11 drawn pictures against 13 real ones"
    assert json.loads((tmp_path / "images.json").read_text())["metrics"] == ours


def test_the_last_layer_and_the_inception_score_equal_the_librarys(weights: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 6, size=16, seed=1)
    write_pictures(tmp_path / "b", 6, size=16, low=80, seed=2)
    where = tmp_path / "a", tmp_path / "b"
    theirs = library(*where, weights, "2048", fid=True, isc=True, kid=True, kid_subset_size=5, isc_splits=2)
    settings = MeasureSettings(
        ("fid", "isc", "kid"), inception_weights=weights, kid_subset_size=5, isc_splits=2, allow=("few_samples",)
    )
    result = measure(where[0], tmp_path / "out", settings, reference=where[1])
    ours = result["metrics"]
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours["isc"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6) and ours["isc"] > 1.001
    assert ours["isc_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert [mark.split(":")[0] for mark in result["marks"]] == ["few_samples", "few_samples"]


def test_distances_equal_torchmetrics_for_the_same_features(folders: tuple[Path, Path], weights: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Module):
        """Features that are there already."""

        num_features = 64

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    torch.manual_seed(0)
    drawn, real = torch.randn(90, 64) * 0.3 + 0.2, torch.randn(100, 64)
    fid = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=90)
    for metric in (fid, kid):
        metric.update(drawn[:, :, None, None], real=False)
        metric.update(real[:, :, None, None] if metric is fid else real[:90, :, None, None], real=True)
    sums = FeatureSums.empty(64), FeatureSums.empty(64)
    sums[0].add(drawn)
    sums[1].add(real)
    assert frechet_distance(*map(moments, sums)) == pytest.approx(fid.compute().item(), rel=1e-6)
    own = kernel_distance(drawn, real[:90], subsets=1, subset_size=90)["kid"]
    assert own == pytest.approx(kid.compute()[0].item(), rel=1e-5)  # theirs sums in single precision


def test_the_distance_is_the_one_of_two_gaussians() -> None:
    """Against its closed form for covariances that commute."""
    one, two = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 16.0])
    sides = [Moments(np.full(3, mean), np.diag(scale), None, {}) for mean, scale in ((0.5, one), (2.5, two))]
    assert frechet_distance(*sides) == pytest.approx(3 * 4 + ((np.sqrt(one) - np.sqrt(two)) ** 2).sum())


def test_too_few_pictures_are_refused_before_they_are_measured(
    folders: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    settings = MeasureSettings(("fid",), inception_weights=weights)
    with pytest.raises(UserError, match=r"fid: 9 drawn pictures for 2048 features.*--allow few_samples"):
        measure(folders[0], tmp_path, settings, reference=folders[1])
    assert not (tmp_path / ".work").exists() and not (tmp_path / "images.json").exists()
    assert check_samples("fid", 64, 64, 64) == []
    with pytest.raises(UserError, match="63 real"):
        check_samples("fid", 64, 64, 63)


def test_statistics_measured_otherwise_are_refused(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    alike = MeasureSettings((), layer="64", inception_weights=weights)
    measure(folders[1], tmp_path / "a", alike, save_statistics=tmp_path / "real.npz")
    few = ("few_samples",)
    fid = MeasureSettings(("fid",), layer="64", inception_weights=weights, allow=few)
    again = measure(folders[0], tmp_path / "b", fid, reference=tmp_path / "real.npz")["metrics"]["fid"]
    direct = measure(folders[0], tmp_path / "c", fid, reference=folders[1])["metrics"]["fid"]
    assert again == pytest.approx(direct, rel=1e-9)
    for changed, name in (
        (MeasureSettings(("fid",), layer="64", variant="clean", inception_weights=weights, allow=few), "variant"),
        (MeasureSettings(("fid",), layer="192", inception_weights=weights, allow=few), "layer"),
    ):
        with pytest.raises(UserError, match=f"statistics with {name} "):
            measure(folders[0], tmp_path / "d", changed, reference=tmp_path / "real.npz")
    with pytest.raises(UserError, match="kid need real pictures"):
        settings = MeasureSettings(("kid",), layer="64", inception_weights=weights)
        measure(folders[0], tmp_path / "d", settings, reference=tmp_path / "real.npz")


def test_statistics_of_unknown_making_are_marked(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 64))
    np.savez(tmp_path / "theirs.npz", mu=values.mean(axis=0), sigma=np.cov(values, rowvar=False))
    settings = MeasureSettings(("fid",), layer="64", inception_weights=weights, allow=("few_samples",))
    result = measure(folders[0], tmp_path / "out", settings, reference=tmp_path / "theirs.npz")
    assert result["metrics"]["fid"] > 0 and result["marks"][1].startswith("unknown_statistics: fid")
    np.savez(tmp_path / "short.npz", mu=values[0][:3], sigma=np.eye(3))
    with pytest.raises(UserError, match="64 channels beside statistics of 3"):
        measure(folders[0], tmp_path / "out2", settings, reference=tmp_path / "short.npz")


def test_a_file_for_the_adm_evaluator_reads_as_it_reads_it(weights: Path, tmp_path: Path) -> None:
    """The evaluator streams `arr_0` from the archive by its header, and takes mu, sigma, mu_s and sigma_s."""
    files = write_pictures(tmp_path / "a", 5, size=16)
    settings = MeasureSettings((), inception_weights=weights, variant="adm")
    measure(tmp_path / "a", tmp_path / "out", settings, export_adm_statistics=tmp_path / "adm.npz")
    with zipfile.ZipFile(tmp_path / "adm.npz") as archive, archive.open("arr_0.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(member)
        assert (shape, fortran, kind) == ((5, 16, 16, 3), False, np.dtype("uint8"))
    found = np.load(tmp_path / "adm.npz", allow_pickle=False)
    from PIL import Image

    expected = np.stack([np.asarray(Image.open(file.path)) for file in in_library_order(files)])
    assert (found["arr_0"] == expected).all()
    assert found["mu"].shape == (2048,) and found["sigma_s"].shape == (2023, 2023)
    extractor = FeatureExtractor(["2048", "spatial"], weights)
    features = extractor(torch.stack([extractor.prepare(Image.fromarray(one)) for one in expected]))
    for name, layer in (("", "2048"), ("_s", "spatial")):
        rows = features[layer].double().numpy()
        assert np.allclose(found[f"mu{name}"], rows.mean(axis=0), rtol=1e-6)
        assert np.allclose(found[f"sigma{name}"], np.cov(rows, rowvar=False), rtol=1e-4, atol=1e-9)
    assert load_moments(tmp_path / "adm.npz").mu.shape == (2048,)
    write_adm(tmp_path / "plain.npz", files)
    assert np.load(tmp_path / "plain.npz").files == ["arr_0"]


def test_the_adm_score_keeps_order_in_splits_of_5000() -> None:
    torch.manual_seed(0)
    logits = torch.randn(10000, 5) * torch.linspace(0.1, 3, 10000)[:, None]
    p = logits.double().softmax(dim=1).numpy()
    expected = []
    for start in (0, 5000):
        part = p[start : start + 5000]
        expected.append(np.exp((part * (np.log(part) - np.log(part.mean(axis=0)))).sum(axis=1).mean()))
    assert inception_score(logits, variant="adm")["isc"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert abs(inception_score(logits)["isc"] - np.mean(expected)) > 0.01, "the library shuffles"


def test_parts_give_the_same_precision_and_recall_as_the_whole() -> None:
    torch.manual_seed(0)
    drawn, real = torch.randn(60, 4), torch.randn(70, 4) * 1.5
    assert precision_recall(drawn, real, batch_size=25) == pytest.approx(precision_recall(drawn, real))


def test_settings_that_cannot_be_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    x = torch.zeros(5, 3)
    with pytest.raises(UserError, match=r"KID subsets of 1000 of 5 pictures.*--kid-subset-size"):
        kernel_distance(x, x)
    with pytest.raises(UserError, match="5 pictures in 10 splits"):
        inception_score(x)
    with pytest.raises(UserError, match="3 neighbours of 3"):
        precision_recall(x[:3], x)
    with pytest.raises(UserError, match=r"mind: torch-fidelity 0\.4"):
        measure(folders[0], tmp_path, MeasureSettings(("mind",)), reference=folders[1])
    with pytest.raises(UserError, match="metric 'fud'"):
        MeasureSettings(("fud",))
    with pytest.raises(UserError, match="nothing to compare with"):
        measure(folders[0], tmp_path, MeasureSettings(("fid",)))


def test_dinov2_distances_come_through_the_library(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library takes the network from the hub: a small one stands in for it."""
    asked = []

    class Small(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)

    monkeypatch.setattr(torch.hub, "load", lambda *names: asked.append(names) or Small())
    result = measure(folders[0], tmp_path, MeasureSettings(("fd_dinov2",)), reference=folders[1])
    import torch_fidelity

    theirs = torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        fid=True,
        feature_extractor="dinov2-vit-l-14",
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
    )
    assert asked[0] == ("facebookresearch/dinov2", "dinov2_vitl14")
    assert result["metrics"]["fd_dinov2"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_resized_and_cropped_sets_equal_the_librarys(weights: Path, tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "a", 8, size=24)
    write_pictures(tmp_path / "b", 4, size=40, seed=3)
    (tmp_path / "b" / "0.png").rename(tmp_path / "a" / "wide.png")
    with pytest.raises(UserError, match=r"several sizes: .* is 24x24, .*wide\.png is 40x40.*--resize-and-crop"):
        measure(tmp_path / "a", tmp_path / "out", MeasureSettings((), layer="64", inception_weights=weights),
                save_statistics=tmp_path / "s.npz")  # fmt: skip
    settings = MeasureSettings((), layer="64", inception_weights=weights, resize_and_crop=20)
    measure(tmp_path / "a", tmp_path / "out", settings, save_statistics=tmp_path / "s.npz")
    from torch_fidelity.metric_fid import fid_featuresdict_to_statistics
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    options = {"cuda": False, "verbose": False, "save_cpu_ram": True, "feature_extractor_weights_path": str(weights)}
    extractor = create_feature_extractor("inception-v3-compat", ["64"], **options)
    theirs = extract_featuresdict_from_input_id(
        1, extractor, input1=str(tmp_path / "a"), samples_resize_and_crop=20, **options
    )
    ours = load_moments(tmp_path / "s.npz")
    assert ours.count == len(files) + 1
    assert np.allclose(ours.mu, fid_featuresdict_to_statistics(theirs, "64")["mu"], rtol=1e-6)


def test_measuring_goes_on_after_a_kill(folders: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Counting(FeatureExtractor):
        seen = 0

        def __call__(self, batch_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
            Counting.seen += len(batch_B3HW)
            return super().__call__(batch_B3HW)

    def stop(title: str, done: int, total: int) -> None:
        if done >= 8:
            raise Killed

    files = write_pictures(tmp_path / "pictures", 18)
    extractor = Counting(["64"], weights)
    whole = measure_features(files, extractor, tmp_path / "whole", sum_layers=["64"], batch_size=4)
    with pytest.raises(Killed):
        measure_features(files, extractor, tmp_path / "work", sum_layers=["64"], batch_size=4, progress=stop)
    Counting.seen = 0
    found = measure_features(files, extractor, tmp_path / "work", sum_layers=["64"], keep_layers=["64"], batch_size=4)
    assert Counting.seen == 18 - 8, "only what was not measured yet"
    assert found.digest == whole.digest and found.count == 18
    assert torch.equal(found.sums["64"].outer_DD, whole.sums["64"].outer_DD)
    assert torch.allclose(found.features["64"].double().sum(dim=0), whole.sums["64"].sum_D, rtol=1e-12)
