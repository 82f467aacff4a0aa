"""Published layouts into our names and back, at full size on the meta device, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.golden import load_golden
from tests.models.cases import DRAWN, SEEN, golden_config, golden_model, make_batch, random_codes, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.models.core.config import DecoderConfig, VARGPTConfig, full_size
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.vargpt import SUBMODULES
from vargpt_lightning.utils.errors import UserError

SCALES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


def published(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint's facts, and its keys with tensors of their shapes that hold no data."""
    meta = load_golden(f"keys/{name}").meta
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    return meta, {
        key: torch.empty(shape, dtype=dtypes[dtype], device="meta") for key, (shape, dtype, _) in meta["keys"].items()
    }


def on_meta(build: Any) -> Any:
    with torch.device("meta"):
        return build()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def full() -> VARGPT:
    return on_meta(lambda: VARGPT(full_size("official")))


def check_conversion(meta: dict[str, Any], state: dict[str, Tensor], layout: Any) -> dict[str, Tensor]:
    """Every key is used once: under a name of its own, or as a constant; return the converted state."""
    converted = layouts.from_official(state, layout)
    assert len(converted.state) + len(converted.derived) == len(state) == meta["n_keys"]
    assert all(meta["keys"][key][2] == "buffer" for key in converted.derived)
    return converted.state


# Full size


def test_vargpt_fills_the_full_model(full: VARGPT) -> None:
    meta, state = published("vargpt_llava_v1_7b")
    assert layouts.detect_layout(state) == "vargpt"
    layouts.load(full, check_conversion(meta, state, "vargpt"))
    assert count(full) == meta["n_params"] == 9_278_137_863
    names = {
        "vision_tower": "vision_tower",
        "vision_projector": "multi_modal_projector",
        "language_model": "language_model",
        "image_tokenizer": "vae_local",
        "visual_decoder": "vargpt_gen",
        "generation_projector_in": "image_gen_projector",
        "generation_projector_out": "image_gen_projector_out",
    }
    parts = {theirs: count(getattr(full, ours)) for ours, theirs in names.items()}
    assert parts == meta["params_per_child"]


@pytest.mark.parametrize(("name", "layout"), [("llava15_7b_tf446", "llava"), ("llava15_7b_tf523", "llava_new")])
def test_llava_fills_the_understanding_half(full: VARGPT, name: str, layout: Any) -> None:
    meta, state = published(name)
    assert layouts.detect_layout(state) == layout
    parts = layouts.LAYOUT_PARTS[layout]
    layouts.load(full, check_conversion(meta, state, layout), parts=parts)
    assert sum(count(getattr(full, part)) for part in parts) == meta["n_params"] == 7_063_427_072


def test_vqvae_fills_the_image_tokenizer(full: VARGPT) -> None:
    meta, state = published("vqvae_ch160v4096z32")
    assert layouts.detect_layout(state) == "vqvae"
    converted = check_conversion(meta, state, "vqvae")
    layouts.load(full, converted, parts=["image_tokenizer"])
    assert count(on_meta(ImageTokenizer)) == meta["n_params"] == 108_948_355


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("var_d8", {"depth": 8}),
        ("var_d16", {"depth": 16}),
        ("var_d30", {"depth": 30}),
        ("var_d36_shared_512", {"depth": 36, "shared_adaln": True, "scales": SCALES_512}),
    ],
)
def test_var_fills_a_decoder(name: str, sizes: dict[str, Any]) -> None:
    meta, state = published(name)
    assert layouts.detect_layout(state) == "var"
    converted = check_conversion(meta, state, "var")
    arguments = {"scales": (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), "code_size": 32, "vocabulary": 4096, **sizes}
    decoder = on_meta(lambda: VisualDecoder(**arguments))
    layouts.load(decoder, {key.removeprefix("visual_decoder."): value for key, value in converted.items()})
    assert count(decoder) == meta["n_params"]


@pytest.mark.parametrize(
    ("name", "sizes", "parameters", "keys"),
    [
        ("infinity_2b", {"depth": 32, "width": 2048, "heads": 16, "chunks": 8, "bits": 32}, 2_204_564_032, 694),
        ("infinity_8b", {"depth": 40, "width": 3584, "heads": 28, "chunks": 8, "bits": 56}, 8_375_791_824, 862),
    ],
)
def test_infinity_fills_a_bitwise_decoder(name: str, sizes: dict[str, int], parameters: int, keys: int) -> None:
    meta, state = published(name)
    assert layouts.detect_layout(state) == "infinity"
    converted = check_conversion(meta, state, "infinity")
    decoder = on_meta(lambda: BitwiseDecoder(**sizes, text_width=2048))
    layouts.load(decoder, {key.removeprefix("visual_decoder."): value for key, value in converted.items()})
    assert (count(decoder), len(state)) == (meta["n_params"], meta["n_keys"]) == (parameters, keys)
    back = layouts.to_official(converted, "infinity")
    assert {key: list(value.shape) for key, value in back.items()} == {
        key: shape for key, (shape, _, _) in meta["keys"].items()
    }
    assert all(not back[key].any() for key in back if key.endswith("zero_k_bias") and not back[key].is_meta)


def test_var_d30_fits_the_paper_s_model_and_has_the_stated_size() -> None:
    meta, state = published("var_d30")
    model = on_meta(lambda: VARGPT(full_size("paper")))
    layouts.load(model, layouts.from_official(state).state, parts=["visual_decoder"])
    assert count(model.visual_decoder) == meta["n_params"] == 2_010_020_356


def test_var_d30_lacks_the_released_model_s_class_rows(full: VARGPT) -> None:
    """The one tensor that does not fit can be kept; without that, the message names it and both shapes."""
    state = layouts.from_official(published("var_d30")[1]).state
    with pytest.raises(
        UserError, match=r"class_emb\.weight has shape \(1001, 1920\), the model expects \(32004, 1920\)"
    ):
        layouts.load(full, state, parts=["visual_decoder"])
    layouts.load(full, state, parts=["visual_decoder"], keep=["visual_decoder.class_emb.weight"])


# There and back


def test_published_names_come_back(full: VARGPT) -> None:
    for name in ("vargpt_llava_v1_7b", "llava15_7b_tf446", "llava15_7b_tf523", "vqvae_ch160v4096z32", "var_d30"):
        meta, state = published(name)
        layout = layouts.detect_layout(state)
        back = layouts.to_official(layouts.from_official(state).state, layout, full.schedule)
        shapes = {key: list(value.shape) for key, value in back.items()}
        assert shapes == {key: shape for key, (shape, _, _) in meta["keys"].items()}
        assert all(back[key] is state[key] for key in layouts.from_official(state).state if key in back)


def test_constants_are_those_of_the_released_code() -> None:
    gold = load_golden("a3_vargpt_tiny_state")
    model = golden_model()
    back = layouts.to_official(model.state_dict(), "vargpt", model.schedule)
    expected = gold.under("sd.")
    for key in expected:
        assert torch.equal(back[key], expected[key].to(back[key].dtype)), key
    assert back["vargpt_gen.lvl_1L"].tolist() == [[0] * 1 + [1] * 4 + [2] * 9 + [3] * 16]
    mask = back["vargpt_gen.attn_bias_for_masking"]
    assert mask.shape == (1, 1, 30, 30) and mask[0, 0, 1].tolist() == [0.0] * 5 + [-torch.inf] * 25
    assert not back["vargpt_gen.blocks.1.attn.zero_k_bias"].any()


def test_layer_norms_are_added_where_the_model_has_none() -> None:
    model = VARGPT(golden_config(unused_layer_norm=False))
    back = layouts.to_official(model.state_dict(), "vargpt", model.schedule)
    assert back.keys() == load_golden("a3_vargpt_tiny_state").meta["all_keys"].keys()
    assert back["image_gen_projector.ln_q.weight"].tolist() == [1.0] * 128
    assert back["image_gen_projector_out.ln_q.bias"].tolist() == [0.0] * 64


def test_constants_that_older_files_carry_are_left_out() -> None:
    state = {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "vision_tower.vision_model.embeddings.position_ids": torch.zeros(1, 5),
        "language_model.lm_head.weight": torch.zeros(2, 2),
    }
    converted = layouts.from_official(state, "llava")
    assert list(converted.state) == ["language_model.lm_head.weight"] and len(converted.derived) == 2


def test_model_on_the_meta_device_works_once_it_took_a_state() -> None:
    original = small_model()
    model = on_meta(lambda: VARGPT(original.config))
    layouts.load(model, original.state_dict(), assign=True)
    batch = make_batch([[1, *SEEN, 5, *DRAWN, 6]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    inputs = {**batch, "pixel_values": pixels, "drawn_indices": random_codes(1)}
    assert model.eval()(inputs).loss.item() == original(inputs).loss.item()


# What does not fit


def change(state: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    merged = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"language_model__lm_head__weight": torch.zeros(7, 32)},
            r"file\.ckpt: key language_model\.lm_head\.weight has shape \(7, 32\), the model expects \(112, 32\)",
        ),
        (
            {"visual_decoder__head__bias": None},
            r"file\.ckpt: key visual_decoder\.head\.bias is missing, the model expects it with shape \(48,\)",
        ),
        ({"visual_decoder__tail": torch.zeros(3)}, r"key visual_decoder\.tail of shape \(3,\) has no place"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(changes: dict[str, Any], match: str) -> None:
    model, other = small_model(1), small_model(2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=match):
        layouts.load(model, change(other.state_dict(), **changes), source="file.ckpt")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    layouts.load(model, other.state_dict())
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_parts_must_be_complete_and_alone() -> None:
    model = small_model(1)
    part = {key: value for key, value in small_model(2).state_dict().items() if key.startswith("generation_projector")}
    assert {key.split(".")[0] for key in part} == set(SUBMODULES["generation_projectors"])
    layouts.load(model, part, parts=["generation_projectors"])
    with pytest.raises(UserError, match="no place"):
        layouts.load(model, part, parts=["generation_projector_in"])
    with pytest.raises(UserError, match="is missing"):
        layouts.load(model, part, parts=["generation_projectors", "visual_decoder"])


def test_foreign_keys_are_refused() -> None:
    with pytest.raises(UserError, match="expected those of"):
        layouts.detect_layout(["encoder.weight"])
    with pytest.raises(UserError, match=r"transformer\.h"):
        layouts.from_official({"transformer.h": torch.zeros(1)}, "llava")
    with pytest.raises(UserError, match="schedule"):
        layouts.to_official({}, "var")


def test_tower_without_a_published_place_is_refused() -> None:
    state = {"vision_tower.network.stem": torch.zeros(1)}
    with pytest.raises(UserError, match=r"vision_tower\.network\.stem"):
        layouts.to_official(state, "llava")


def test_other_sizes_are_refused() -> None:
    config: VARGPTConfig = golden_config()
    model = VARGPT(replace(config, decoder=DecoderConfig(depth=1, classes=103)))
    with pytest.raises(UserError, match=r"visual_decoder"):
        layouts.load(model, golden_model().state_dict())
