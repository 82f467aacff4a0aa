"""The language model, the towers and the projectors by themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from tests.models.cases import IDS
from vargpt_lightning.models.core.config import LanguageConfig, VisionConfig
from vargpt_lightning.models.language.llama import (
    GenerationProjector,
    LanguageModel,
    build_vision_projector,
    build_vision_tower,
    check_pictures,
)
from vargpt_lightning.models.vision.networks.clip import ClipTower
from vargpt_lightning.models.vision.networks.efficientnet import EfficientNetTower
from vargpt_lightning.utils.errors import UserError

LANGUAGE = LanguageConfig(width=32, layers=3, heads=4, kv_heads=2, vocabulary=112, max_positions=64)
CLIP = VisionConfig(kind="clip", picture_size=28, patch_size=7, width=16, layers=3, heads=2, mlp=32)
LITE = VisionConfig(kind="efficientnet_lite0", picture_size=64)


def pixels(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


# Language model


def test_language_model_has_the_asked_sizes() -> None:
    model = LanguageModel(LANGUAGE)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == (112, 32)
    assert shapes["model.layers.2.self_attn.k_proj.weight"] == (16, 32)
    assert shapes["model.layers.0.mlp.gate_proj.weight"] == (96, 32)
    assert "model.layers.3.mlp.gate_proj.weight" not in shapes
    assert model.kernel == "sdpa"


def test_fresh_language_model_is_spread_as_asked_and_padding_is_no_special_row() -> None:
    torch.manual_seed(0)
    model = LanguageModel(replace(LANGUAGE, initializer_range=0.05))
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.05, rel=0.1)
    assert model.model.embed_tokens.weight[IDS.pad].abs().sum() > 0


def test_rotary_base_is_the_asked_one() -> None:
    model = LanguageModel(replace(LANGUAGE, rope_theta=100.0))
    expected = 100.0 ** -(torch.arange(4) / 4)  # RoFormer, arXiv 2104.09864, section 3.2.2; heads of 8 dimensions.
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)


def test_recomputed_activations_change_nothing_but_memory() -> None:
    gradients, held = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = LanguageModel(replace(LANGUAGE, checkpoint_activations=recompute)).train()
        embeds = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: (to.append(x.numel()), x)[1], lambda x: x):
            loss = model.model(embeds).square().sum()
        held.append(sum(sizes))
        loss.backward()
        gradients.append([embeds.grad, *(p.grad for p in model.model.layers.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert held[1] < held[0] / 2


# Towers


def test_clip_feature_is_the_last_but_one_layer_without_the_class_token() -> None:
    torch.manual_seed(0)
    tower = ClipTower(CLIP).eval()
    with torch.no_grad():
        features = tower(pixels(28))
        assert features.shape == (2, CLIP.patches, CLIP.channels) == (2, 16, 16)
        tower.model.encoder.layers[2].mlp.fc1.weight.mul_(3)
        torch.testing.assert_close(tower(pixels(28)), features, rtol=0, atol=0)
        hidden = tower.model(pixels(28), output_hidden_states=True).hidden_states
        torch.testing.assert_close(hidden[2][:, 1:], features)
        tower.model.encoder.layers[1].mlp.fc1.weight.mul_(3)
        assert (tower(pixels(28)) - features).abs().max() > 1e-3


@pytest.mark.parametrize(("feature", "channels"), [("head", 1280), ("blocks", 320), ("levels", 1360)])
def test_efficientnet_features_are_the_package_s_own(feature: str, channels: int) -> None:
    tower = EfficientNetTower(replace(LITE, feature=feature))
    reference = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    missing = reference.load_state_dict({k: v for k, v in tower.network.state_dict().items()}, strict=False)
    assert set(missing.missing_keys) == {"_fc.weight", "_fc.bias"}
    with torch.no_grad():
        features = tower(pixels(64))
        assert features.shape == (2, 4, channels) == (2, tower_config(feature).patches, tower_config(feature).channels)
        if feature != "blocks":
            expected = reference.extract_features(pixels(64)).flatten(2).transpose(1, 2)
            torch.testing.assert_close(features[..., :1280], expected)
        if feature == "levels":
            middle_PCHW = _after_block(reference, 5, pixels(64))
            expected = F.max_pool2d(middle_PCHW, 2).flatten(2).transpose(1, 2)
            torch.testing.assert_close(features[..., 1280:], expected)


def _after_block(network: EfficientNet, index: int, pixels_P3SS: Tensor) -> Tensor:
    outputs: list[Tensor] = []
    handle = network._blocks[index].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network.extract_features(pixels_P3SS)
    handle.remove()
    return outputs[0]


def tower_config(feature: str) -> VisionConfig:
    return replace(LITE, feature=feature)


def test_efficientnet_has_its_imagenet_weights_and_never_trains() -> None:
    tower, fresh = EfficientNetTower(LITE), EfficientNetTower(replace(LITE, pretrained=False))
    assert tower.network._bn0.running_var.std() > 0.01 and fresh.network._bn0.running_var.std() == 0
    assert all(not parameter.requires_grad for parameter in tower.parameters())
    before = tower.network._bn0.running_mean.clone()
    tower.train()
    first = tower(pixels(64))
    assert not any(module.training for module in tower.modules())
    assert torch.equal(tower.network._bn0.running_mean, before) and torch.equal(tower(pixels(64)), first)


def test_efficientnet_takes_other_picture_sizes() -> None:
    tower = EfficientNetTower(replace(LITE, picture_size=96, pretrained=False))
    assert tower(pixels(96)).shape == (2, 9, 1280)


def test_efficientnet_pyramid_has_a_map_a_resolution_and_lets_gradients_through() -> None:
    tower = EfficientNetTower(replace(LITE, feature="blocks"))
    inputs = pixels(96).requires_grad_()
    maps = tower.pyramid(inputs)
    assert [tuple(x.shape[1:]) for x in maps] == [(16, 48, 48), (24, 24, 24), (40, 12, 12), (112, 6, 6), (320, 3, 3)]
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), tower(inputs))
    for x in maps:
        (grad,) = torch.autograd.grad(x.square().sum(), inputs, retain_graph=True)
        assert grad.abs().sum() > 0


def test_efficientnet_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        tower = build_vision_tower(LITE)
    assert tower is not None and all(parameter.is_meta for parameter in tower.parameters())


def test_no_tower_where_none_is_asked_for() -> None:
    assert build_vision_tower(VisionConfig(kind="none")) is None
    assert VisionConfig(kind="none").patches == 0


def test_pictures_of_another_size_are_refused() -> None:
    check_pictures(pixels(64), LITE)
    with pytest.raises(UserError, match=r"got shape \(2, 3, 32, 32\), expected \(pictures, \(3, 64, 64\)\)"):
        check_pictures(pixels(32), LITE)


# Projectors


def test_vision_projector_is_two_layers_with_a_gelu() -> None:
    projector = build_vision_projector(VisionConfig(kind="clip", picture_size=28, width=6, heads=2), 8)
    assert isinstance(projector, torch.nn.Sequential)
    x = torch.randn(2, 3, 6)
    expected = projector[2](torch.nn.functional.gelu(projector[0](x)))
    torch.testing.assert_close(projector(x), expected)
    assert projector[0].weight.shape == (8, 6) and projector[2].weight.shape == (8, 8)


def test_generation_projector_keeps_the_input_width_inside_and_ignores_its_layer_norm() -> None:
    torch.manual_seed(0)
    projector = GenerationProjector(6, 8, unused_layer_norm=True)
    x = torch.randn(2, 3, 6)
    before = projector(x)
    with torch.no_grad():
        projector.ln_q.weight.fill_(7.0)
    assert before.shape == (2, 3, 8) and torch.equal(projector(x), before)
    assert projector.mlp[0].weight.shape == (6, 6)
    assert not any(name.startswith("ln_q") for name, _ in GenerationProjector(6, 8).named_parameters())
