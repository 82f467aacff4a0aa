"""The three resize rules, the network used as it is, and what happens with weights that are none."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.pictures import write_inception
from vargpt_lightning.evaluation.features.inception import FeatureExtractor, clean_resize
from vargpt_lightning.evaluation.features.inception_pass import resize_as_tensorflow
from vargpt_lightning.utils.errors import UserError

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "clean_resize.json"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


def pictures(count: int = 3, size: int = 40) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)) for _ in range(count)]


def batch(extractor: FeatureExtractor, shown: list[Image.Image]) -> torch.Tensor:
    return torch.stack([extractor.prepare(picture) for picture in shown])


@pytest.mark.parametrize(("count", "size"), [(1, 40), (2, 256), (9, 330), (33, 40)])
def test_the_default_is_the_librarys_network_bit_for_bit(weights: Path, count: int, size: int) -> None:
    """For batches that are looked at at once or by parts, and pictures below, at and above the network's size."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = ["64", "192", "768", "2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", layers, str(weights))
    ours = FeatureExtractor(layers, weights)
    shown = pictures(count, size)
    given = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in shown])
    for layer, expected in zip(layers, theirs(given), strict=True):
        assert torch.equal(ours(batch(ours, shown))[layer], expected)


@pytest.mark.parametrize("shape", [(1, 1), (40, 48), (299, 299), (300, 701)])
def test_the_resize_is_the_librarys_bit_for_bit(shape: tuple[int, int]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    levels = torch.randint(256, (2, 3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = interpolate_bilinear_2d_like_tensorflow1x(levels.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resize_as_tensorflow(levels, 299), expected)


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["cases"], ids=lambda case: str(case["height"]))
def test_clean_resizes_as_clean_fid(case: dict) -> None:
    """Values that clean-fid's own resize gave, at random places; sizes above, below and equal to 299, and one row."""
    shape = case["height"], case["width"], 3
    found = clean_resize(np.random.default_rng(case["seed"]).integers(0, 256, shape, dtype=np.uint8))
    assert found.dtype == np.float32 and found.shape == (299, 299, 3)
    for row, column, colour, value in case["values"]:
        assert found[row, column, colour] == pytest.approx(value, abs=1e-4)
    assert found.mean(dtype=np.float64) == pytest.approx(case["mean"], rel=1e-7)
    assert (found.astype(np.float64) ** 2).mean() == pytest.approx(case["square"], rel=1e-7)


def test_clean_pictures_are_not_resized_again(weights: Path) -> None:
    """At 299 pixels all rules leave a picture as it is, so all features are equal; at others they are not."""
    rules = {name: FeatureExtractor(["64"], weights, variant=name) for name in ("torch_fidelity", "clean", "adm")}
    rng = np.random.default_rng(1)
    exact = [Image.fromarray(rng.integers(0, 256, (299, 299, 3), dtype=np.uint8))]
    found = {name: rule(batch(rule, exact))["64"] for name, rule in rules.items()}
    assert torch.equal(found["clean"], found["torch_fidelity"]) and torch.equal(found["adm"], found["clean"])
    shown = pictures(1, 500)
    found = {name: rule(batch(rule, shown))["64"] for name, rule in rules.items()}
    assert (found["clean"] - found["torch_fidelity"]).abs().max() > 1e-3
    again = rules["clean"](batch(rules["clean"], exact))["64"]
    assert torch.equal(again, rules["clean"](batch(rules["clean"], exact))["64"]), (
        "nothing is left behind in the network"
    )


def tensorflow_resize(pixels_HWC: np.ndarray, side: int = 299) -> np.ndarray:
    """ResizeBilinear of TensorFlow 1 without aligned corners: places i x in / out, neighbours below and right."""
    found = pixels_HWC.astype(np.float32)
    for axis in (0, 1):
        size = found.shape[axis]
        at = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, size - 1)
        weight = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        below, above = found.take(low, axis), found.take(high, axis)
        found = below + (above - below) * weight
    return found


@pytest.mark.parametrize("size", [40, 340])
def test_adm_resizes_as_the_evaluators_graph(weights: Path, size: int) -> None:
    adm, bare = (FeatureExtractor(["64"], weights, variant=name) for name in ("adm", "clean"))
    shown = pictures(2, size)
    resized = np.stack([tensorflow_resize(np.asarray(picture)) for picture in shown])
    expected = bare(torch.from_numpy(resized).permute(0, 3, 1, 2))["64"]
    assert torch.allclose(adm(batch(adm, shown))["64"], expected, atol=2e-5)


def test_spatial_features_are_the_evaluators(weights: Path) -> None:
    """The first seven channels of the relu of mixed_6's first branch, place by place: (17, 17, 7)."""
    extractor = FeatureExtractor(["64", "spatial"], weights)
    kept = []
    extractor.network.Mixed_6d.branch1x1.register_forward_hook(lambda m, i, o: kept.append(o))
    found = extractor(batch(extractor, pictures(1)))["spatial"]
    assert found.shape == (1, 2023) and extractor.sizes() == {"64": 64, "spatial": 2023}
    assert found.reshape(17, 17, 7)[3, 5, 6] == kept[0][0, 6, 3, 5] and (found >= 0).all()
    shown = pictures(5)  # looked at by parts
    few, all_ = (extractor(batch(extractor, shown[:count]))["spatial"] for count in (3, 5))
    assert torch.equal(all_[:3], few)


def test_channels_last_differs_by_rounding_alone(weights: Path) -> None:
    exact, fast = (FeatureExtractor(["192"], weights, layout=name) for name in ("contiguous", "channels_last"))
    shown = pictures(2)
    one, two = exact(batch(exact, shown))["192"], fast(batch(fast, shown))["192"]
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-5) and exact.about != fast.about


class Harmful:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (Path.touch, (Path("harm-was-done"),))


def test_files_that_are_no_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("weights")
    with open(tmp_path / "code.pth", "wb") as file:
        pickle.dump({"fc.weight": Harmful()}, file)
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, message in (
        ("nothing.pth", "not found"),
        ("text.pth", "not a file of weights"),
        ("code.pth", "not a file of weights"),
        ("list.pth", "list; expected names and tensors"),
        ("other.pth", "not the weights of inception-v3-compat"),
    ):
        with pytest.raises(UserError, match=message):
            FeatureExtractor(["64"], tmp_path / name)
    assert not (tmp_path / "harm-was-done").exists()


def test_names_that_are_not_known(weights: Path) -> None:
    with pytest.raises(UserError, match=r"variant 'bicubic'; expected one of torch_fidelity, clean, adm"):
        FeatureExtractor(["64"], weights, variant="bicubic")
    with pytest.raises(UserError, match="no layer '65'"):
        FeatureExtractor(["65"], weights)
    with pytest.raises(UserError, match="rule for Inception"):
        FeatureExtractor(["dinov2"], name="dinov2-vit-l-14", variant="clean")
    with pytest.raises(UserError, match="reads no weights file"):
        FeatureExtractor(["dinov2"], weights, name="dinov2-vit-l-14")


def test_weights_that_cannot_be_fetched_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_fidelity.feature_extractor_inceptionv3 as library

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(library, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match=r"cannot be fetched.*no route to host.*local file"):
        FeatureExtractor(["64"])
