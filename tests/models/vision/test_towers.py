"""Every tower gives what transformers' own model gives of the same pictures, and is found in its folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.models.cases import IDS, make_batch, small_model
from tests.models.vision.published import MODELS, save, transformers_features
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import choose
from vargpt_lightning.checkpoints.meta_init import RecordedInit
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.inference.assistant import seen_reader
from vargpt_lightning.models import vision
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.vision_config import VisionConfig
from vargpt_lightning.recipe.init_from import InitFrom
from vargpt_lightning.utils.errors import UserError

NATIVE = ("siglip2_naflex", "qwen2_vl")
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("dinov2", {"use_swiglu_ffn": True, "qkv_bias": False}),
    ("dinov3", {"use_gated_mlp": True, "key_bias": True, "mlp_bias": False, "hidden_act": "silu", "rope_theta": 50.0}),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A folder of each family, and the model in it."""
    root = tmp_path_factory.mktemp("towers")
    return {kind: (root / kind, save(kind, root / kind)) for kind in MODELS}


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(3)
    sizes = [(40, 90), (70, 17), (5, 5), (32, 32)]
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def seen(config: VisionConfig) -> Tensor:
    return torch.stack([seen_reader(config).to_tensor(picture) for picture in pictures()])


def tower_of(config: VisionConfig, folder: Path, width: int = 16) -> nn.Module:
    """The tower with a folder's weights, and its own projector behind it where it has one."""
    model = around(config, width)
    init = InitFrom(vision_tower=str(folder), vision_projector=str(folder) if config.kind == "qwen2_vl" else None)
    chosen, _ = choose(model, init)
    model.load_state_dict({key: source.part() for key, source in chosen.items()}, strict=False)
    assert model.vision_tower is not None and model.vision_projector is not None
    parts = [model.vision_tower, *([model.vision_projector] if config.kind == "qwen2_vl" else [])]
    return nn.Sequential(*parts).eval()


def around(config: VisionConfig, width: int = 16) -> VARGPT:
    """A small model that sees through a tower."""
    values = small_model().config.to_dict()
    values["language"] |= {"width": width}
    values["vision"] = config.__dict__
    torch.manual_seed(0)
    return VARGPT(VARGPTConfig.from_dict(values)).eval()


@torch.no_grad()
def assert_same_features(config: VisionConfig, folder: Path, model: Any) -> None:
    pixels = seen(config)
    found, expected = tower_of(config, folder)(pixels), transformers_features(model, config, pixels)
    valid = expected.abs().sum(-1) > 0
    assert found.shape[1] == config.patches and (config.kind in NATIVE) == bool((~valid).any())
    assert float((found - expected)[valid].abs().max()) < 1e-6 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("layer", [-2, 0, None])
def test_features_are_transformers(kind: str, layer: int | None, folders: Any) -> None:
    folder, model = folders[kind]
    if kind == "clip" and layer is None:
        with pytest.raises(UserError, match=r"vision.feature_layer: got None, expected a hidden state of 3 layers"):
            VisionConfig(like=str(folder), feature_layer=None)
        return
    config = VisionConfig(like=str(folder), feature_layer=layer, max_tokens=24)
    assert config.kind == kind and config.layers == 3 and config.like is None
    assert_same_features(config, folder, model)


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_options_are_transformers(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = save(kind, tmp_path, **options)
    config = VisionConfig(like=str(tmp_path))
    assert options.items() <= config.options.items()
    assert_same_features(config, tmp_path, model)


@pytest.mark.parametrize("kind", ["siglip", "dinov2", "dinov3"])
def test_positions_serve_other_sizes(kind: str, folders: Any) -> None:
    folder, model = folders[kind]
    side = {"siglip": 70, "dinov2": 28, "dinov3": 64}[kind]
    config = VisionConfig(like=str(folder), picture_size=side)
    assert config.positions == {"siglip": 2, "dinov2": 3, "dinov3": None}[kind]
    assert config.patches == (side // config.patch_size) ** 2
    assert_same_features(config, folder, model)


def test_so400m_at_384_pixels_leaves_six_of_them_out() -> None:
    sizes: dict[str, Any] = {"width": 1152, "layers": 1, "heads": 16, "mlp": 4304}
    config = VisionConfig(kind="siglip", picture_size=384, patch_size=14, **sizes)
    with torch.device("meta"):
        tower = vision.get("siglip").build(config)
        assert tower(torch.empty(1, 3, 384, 384)).shape == (1, config.patches, 1152) == (1, 729, 1152)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_sees_through_any_tower(kind: str, folders: Any, tmp_path: Path) -> None:
    """Alone as in a batch, with empty pictures too; fresh weights without memory; written and read byte by byte."""
    config = VisionConfig(like=str(folders[kind][0]), max_tokens=24)
    model, pixels = around(config), seen(config)
    tower: Any = model.vision_tower
    with torch.no_grad():
        together = tower(pixels)
        for number, one in enumerate(pixels):
            torch.testing.assert_close(tower(one[None])[0], together[number], rtol=1e-5, atol=1e-6)
        assert tower(torch.zeros_like(pixels)).isfinite().all()
    batch = make_batch([[IDS.bos, *[IDS.image] * config.patches, 5, 6, IDS.eos]], prompt_length=config.patches + 2)
    by_pixels = model({**batch, "pixel_values": pixels[:1]})
    by_features = model({**batch, "vision_features": together[:1]})
    assert torch.allclose(by_pixels.loss, by_features.loss, atol=1e-6)
    by_pixels.loss.backward()
    assert all(each.grad is not None for each in model.vision_projector.parameters())  # type: ignore[union-attr]
    torch.manual_seed(0)
    with RecordedInit(0) as made:
        empty = vision.get(kind).build(config)
    torch.manual_seed(0)
    expected, found = vision.get(kind).build(config), dict[str, Tensor]()
    wanted = {name: made.storage_of(each) for name, each in empty.named_parameters()}
    made.play({at: lambda value, name=name: found.update({name: value}) for name, at in wanted.items()})
    assert all(torch.equal(found[name], each) for name, each in expected.named_parameters())
    model.save_pretrained(tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "again")
    one, two = (open_checkpoint(tmp_path / name).state for name in ("whole", "again"))
    assert one.keys() == two.keys() and any(key.startswith("vision_tower.model.") for key in one)
    for key, value in one.items():
        assert torch.equal(value.part().view(torch.uint8), two[key].part().view(torch.uint8)), key


@pytest.mark.parametrize("kind", MODELS)
def test_a_towers_folder_is_converted_alone(kind: str, folders: Any, tmp_path: Path) -> None:
    folder, _ = folders[kind]
    convert(folder, tmp_path / "ours")
    theirs, ours = open_checkpoint(folder), open_checkpoint(tmp_path / "ours", sizes=False)
    whole = ("language_model", "vision_tower", "vision_projector")  # Qwen2-VL's tower comes with all the rest
    layout, parts = ("qwen2_vl", whole) if kind == "qwen2_vl" else ("tower", ("vision_tower",))
    assert theirs.layout == layout and ours.sections["vision"] == theirs.sections["vision"]
    assert theirs.parts == parts
    assert all(torch.equal(value.part(), ours.state[key].part()) for key, value in theirs.state.items())
    config = VisionConfig(like=str(folder))
    choose(around(config), InitFrom(vision_tower=str(tmp_path / "ours")))


def test_mistakes_are_told_in_one_line(folders: Any, tmp_path: Path) -> None:
    siglip, dino, qwen = (str(folders[kind][0]) for kind in ("siglip", "dinov2", "qwen2_vl"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    cases: list[tuple[dict[str, Any], str]] = [
        ({"kind": "siglip", "picture_size": 250}, "a positive multiple of 14, the pixels of a token of siglip"),
        ({"kind": "siglip3"}, "vision.kind: got 'siglip3', expected one of clip, dinov2, dinov3, efficientnet_lite0"),
        ({"like": str(tmp_path)}, "its family is 'bert'; expected a model with one of clip, dinov2, dinov3"),
        ({"kind": "siglip", "like": dino}, "its tower is 'dinov2', but vision.kind is 'siglip'"),
        ({"like": str(tmp_path / "none")}, r"vision.like='.*none': .* cannot be read"),
        ({"like": siglip, "fit": "naflex"}, "vision.fit: got 'naflex', expected one of clip, crop, dinov2"),
        ({"like": qwen, "fit": "pad"}, "vision.fit: got 'pad', expected one of qwen2_vl for qwen2_vl"),
        ({"like": siglip, "options": {"rope_theta": 1}}, "vision.options.rope_theta: got 1, expected an option of sig"),
        ({"like": siglip, "options": {"hidden_act": "relu"}}, "vision.options.hidden_act: got 'relu', expected one of"),
        ({"kind": "clip", "positions": 3}, "vision.positions: got 3, expected none: clip does not interpolate"),
        ({"like": str(folders["clip"][0]), "picture_size": 56}, "vision.picture_size: got 56, expected 28, for which"),
        ({"kind": "dinov3", "width": 20, "heads": 2, "picture_size": 28}, "expected heads of a multiple of 4, here"),
    ]
    for values, told in cases:
        with pytest.raises(UserError, match=told):
            VisionConfig(**values)
    with pytest.raises(UserError, match=r"its vision\.kind is 'dinov2', model\.vision\.kind is 'siglip'"):
        choose(around(VisionConfig(like=siglip)), InitFrom(vision_tower=dino))
    with pytest.raises(UserError, match=r"key vision_tower.model.*position_embedding.weight has shape \(4, 16"):
        choose(around(replace(VisionConfig(like=siglip), picture_size=42)), InitFrom(vision_tower=siglip))
    with pytest.raises(UserError, match=r"holds vision_tower; expected language_model"):
        choose(around(VisionConfig(like=siglip)), InitFrom(language_model=siglip))
    with pytest.raises(UserError, match=r"--to llava: the vision tower is 'siglip'"):
        convert(Path(siglip), tmp_path / "llava", "llava")
