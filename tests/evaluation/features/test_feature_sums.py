"""Sums of features: they add up over batches, files and processes, and memory stays flat."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.pictures import write_pictures
from tests.ranks import run_ranks
from tests.ranks import said as printed
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.features.feature_sums import FeatureSums, load_moments
from vargpt_lightning.evaluation.images.feature_store import BATCHES_AHEAD, measure_features
from vargpt_lightning.evaluation.images.picture_lists import PictureFile, list_pictures
from vargpt_lightning.utils.errors import UserError


class Colours:
    """Stands in for a network: means and deviations of colours, in single precision."""

    name, layers, about = "colours", ("mean",), {"extractor": "colours", "variant": "torch_fidelity", "weights": "0"}
    seen: list[int]

    def __init__(self) -> None:
        self.seen = []

    def sizes(self) -> dict[str, int]:
        return {"mean": 6}

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def __call__(self, batch_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(len(batch_B3HW))
        flat = batch_B3HW.float().flatten(2)
        return {"mean": torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)}


def rows(count: int = 100, size: int = 7) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, size) + 3


def sums_of(features: torch.Tensor, **about: Any) -> FeatureSums:
    found = FeatureSums.empty(features.shape[1], about)
    for part in features.split(33):
        found.add(part)
    return found


def measured(folder: Path, work: Path, **options: Any) -> Any:
    extractor: Any = Colours()
    return measure_features(list_pictures(folder), extractor, work, sum_layers=["mean"], **options)


def test_mean_and_covariance_equal_numpys() -> None:
    found, x = sums_of(rows()), rows().double().numpy()
    assert found.count == 100 and found.mean().dtype == np.float64
    assert np.allclose(found.mean(), x.mean(axis=0), rtol=1e-12)
    assert np.allclose(found.covariance(), np.cov(x, rowvar=False), rtol=1e-10)


def test_sums_of_parts_are_the_sums_of_all() -> None:
    whole, parts = sums_of(rows()), sums_of(rows()[:41]) + sums_of(rows()[41:])
    assert parts.count == whole.count and torch.allclose(parts.outer_DD, whole.outer_DD, rtol=1e-12)
    with pytest.raises(UserError, match="variant 'clean' beside features with variant 'adm'"):
        sums_of(rows(), variant="adm") + sums_of(rows(), variant="clean")


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(UserError, match="1 pictures were measured; expected at least 2"):
        sums_of(rows(1)).covariance()


def test_saved_sums_come_back_exactly(tmp_path: Path) -> None:
    about = {"variant": "clean", "layer": "64", "weights": "abc", "list": "123"}
    before = sums_of(rows(), **about)
    before.save(tmp_path / "sums.npz")
    after = FeatureSums.load(tmp_path / "sums.npz")
    assert after.count == 100 and torch.equal(after.outer_DD, before.outer_DD) and after.about == about
    found = load_moments(tmp_path / "sums.npz")
    assert (found.sigma == before.covariance()).all() and found.count == 100 and found.about == about
    assert [path.name for path in tmp_path.iterdir()] == ["sums.npz"], "nothing is left of the writing"


def test_files_that_are_no_statistics(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("mu")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "shape.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    np.savez(tmp_path / "code.npz", mu=np.array([{}], dtype=object), sigma=np.zeros((1, 1)))
    sums_of(rows()).save(tmp_path / "torn.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "torn.npz").read_bytes()[:300])
    for name, message in (
        ("nothing", "not found"),
        ("text", "not readable"),
        ("torn", "not readable"),
        ("code", "not readable"),
        ("other", "has x; expected saved statistics, or mu and sigma"),
        ("shape", r"mu is \(3,\), sigma \(2, 2\)"),
    ):
        with pytest.raises(UserError, match=message):
            load_moments(tmp_path / f"{name}.npz")


EYE, ZEROS = np.eye(3), np.zeros(3)
SAVED = {"count": np.int64(5), "sum": ZEROS, "outer": 5 * EYE, "about": np.array("{}")}


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"mu": ZEROS, "sigma": -EYE}, "sigma has negative eigenvalues"),
        ({"mu": ZEROS, "sigma": EYE - 0.8}, "sigma has negative eigenvalues"),
        ({"mu": ZEROS, "sigma": np.triu(EYE + 0.1)}, "sigma is not symmetric"),
        ({"mu": ZEROS * 1j, "sigma": EYE}, "mu is of type complex128; expected real numbers"),
        ({"mu": np.array(["a", "b", "c"]), "sigma": EYE}, "mu is of type"),
        ({"mu": ZEROS + 1e200, "sigma": EYE}, "the numbers are too large"),
        ({**SAVED, "sum": ZEROS + 50}, "sigma has negative eigenvalues"),
        ({**SAVED, "outer": -EYE}, "sigma has negative eigenvalues"),
        ({**SAVED, "outer": np.eye(4)}, r"the shapes are count \(\), sum \(3,\), outer \(4, 4\)"),
        ({**SAVED, "count": np.array([5])}, r"the shapes are count \(1,\)"),
        ({**SAVED, "count": np.array("five")}, "count is of type"),
        ({**SAVED, "about": np.array("{")}, "about is no JSON"),
        ({**SAVED, "about": np.array("[1]")}, r"about is \[1\]; expected keys with values"),
    ],
)
def test_statistics_that_cannot_be_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    file = tmp_path / "wrong.npz"
    np.savez(file, **arrays)
    with pytest.raises(UserError, match=f"wrong.npz: {told}"):
        load_moments(file)


def test_an_array_by_itself_is_no_file_of_statistics(tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    with file.open("wb") as opened:
        np.save(opened, EYE)
    with pytest.raises(UserError, match=r"one.npz: not readable as .npz"):
        load_moments(file)


def test_covariances_that_are_singular_but_for_rounding_are_read(tmp_path: Path) -> None:
    """Fewer pictures than channels, saved in 32 bits; pictures that are all the same."""
    features_ND = np.random.default_rng(0).normal(size=(5, 40)) * 9
    for number, rows in enumerate((features_ND, np.repeat(features_ND[:1], 5, 0))):
        file = tmp_path / f"{number}.npz"
        np.savez(file, mu=rows.mean(0).astype(np.float32), sigma=np.cov(rows.T).astype(np.float32))
        assert load_moments(file).sigma.shape == (40, 40)
        sums = FeatureSums.empty(40)
        sums.add(torch.from_numpy(rows))
        sums.save(file)
        assert np.allclose(load_moments(file).sigma, np.cov(rows.T))


def test_the_list_is_named_by_ids_and_contents(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 5)
    write_pictures(tmp_path / "b", 5)
    one = measured(tmp_path / "a", tmp_path / "w")
    assert one.digest == measured(tmp_path / "b", tmp_path / "w").digest == one.sums["mean"].about["list"]
    Image.new("RGB", (32, 32), "red").save(tmp_path / "b" / "3.png")
    assert measured(tmp_path / "b", tmp_path / "w").digest != one.digest
    (tmp_path / "a" / "4.png").rename(tmp_path / "a" / "5.png")
    assert measured(tmp_path / "a", tmp_path / "w").digest != one.digest


def test_pictures_that_do_not_decode(tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "a", 9)
    whole = files[4].path.read_bytes()
    files[4].path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"4\.png: does not decode .*--allow broken"):
        measured(tmp_path / "a", tmp_path / "w", batch_size=4)
    found = measured(tmp_path / "a", tmp_path / "w", batch_size=4, allow=("broken",), keep_layers=["mean"])
    assert (found.count, found.broken, len(found.features["mean"])) == (8, 1, 8)
    files[4].path.unlink()
    assert torch.allclose(measured(tmp_path / "a", tmp_path / "w2").sums["mean"].sum_D, found.sums["mean"].sum_D)
    for file in files[5:]:
        file.path.write_bytes(b"")
    with pytest.raises(UserError, match=r"5\.png: no picture"):
        measured(tmp_path / "a", tmp_path / "w")


def test_nothing_to_measure(tmp_path: Path) -> None:
    extractor: Any = Colours()
    with pytest.raises(UserError, match="no pictures"):
        measure_features([], extractor, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures; expected"):
        list_pictures(tmp_path / "empty")


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the decoded pictures that are alive: a process's size is its allocator's business."""
    write_pictures(tmp_path / "a", 1)
    decoded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def prepare(self: Colours, picture: Image.Image) -> torch.Tensor:
        array = np.array(picture)  # lives as long as a tensor that looks at it
        decoded.append(weakref.ref(array))
        return torch.from_numpy(array).permute(2, 0, 1)

    def progress(*_: Any) -> None:
        alive.append(sum(reference() is not None for reference in decoded))

    monkeypatch.setattr(Colours, "prepare", prepare)
    extractor: Any = Colours()
    files = [PictureFile(str(number), tmp_path / "a" / "0.png") for number in range(60)]
    measure_features(files, extractor, tmp_path / "w", sum_layers=["mean"], batch_size=3, progress=progress)
    assert len(decoded) == 60 and len(alive) == 20
    assert 3 <= max(alive) <= 3 * (BATCHES_AHEAD + 2)


def in_a_process(pictures: Path, work: Path, out: Path) -> None:
    """Measure as one of several processes; write what each has found, and the sums by the first."""
    processes = Processes.from_environment()
    found = measured(pictures, work, batch_size=4, keep_layers=["mean"], processes=processes)
    sums = found.sums["mean"]
    if processes.first:
        sums.save(out / "sums.npz")
    said = [processes.rank, sums.count, found.count, found.digest, found.features["mean"].sum().item()]
    (out / f"{processes.rank}.json").write_text(json.dumps(said))


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    """19 pictures in batches of 4: three batches for one process, two for the other, the last one short."""
    write_pictures(tmp_path / "a", 19)
    one = measured(tmp_path / "a", tmp_path / "w1", batch_size=4, keep_layers=["mean"])
    log, given = tmp_path / "log", (tmp_path / "a", tmp_path / "w2", tmp_path)
    assert run_ranks(2, log, in_a_process, *given) == [0, 0], printed(log, 2)
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [row[0] for row in said] == [0, 1] and said[0][1:] == said[1][1:]
    assert said[0][1:4] == [19, 19, one.digest]
    assert said[0][4] == one.features["mean"].sum().item(), "the very same features"
    both = FeatureSums.load(tmp_path / "sums.npz")
    assert both.count == one.count
    assert torch.allclose(both.sum_D, one.sums["mean"].sum_D, rtol=1e-9, atol=0)
    assert torch.allclose(both.outer_DD, one.sums["mean"].outer_DD, rtol=1e-9, atol=0)
