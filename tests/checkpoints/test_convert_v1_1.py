"""VARGPT-v1.1 and Qwen2-VL in and out of the authors' layouts: names, bytes, and what is stored without a use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, Qwen2VLForConditionalGeneration

from tests.checkpoints.test_convert import State, assert_same_bytes, read, write_published
from tests.golden import load_golden
from tests.models.cases import small_model
from tests.models.v1_1 import BUFFERS, golden_batch, golden_config, golden_patches, released_state, small_v1_1
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import choose
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.published.qwen2_vl import sizes_of_qwen2_vl, v1_1_config, whole_sections
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.recipe.init_from import InitFrom
from vargpt_lightning.utils.errors import UserError

FULL = {
    "model_type": "vargpt_qwen2_vl",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "image_token_id": 151655,
    "pad_token_id": 151643,
    "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14},
    "special_tokens": {
        "image_gen_start_token_id": 151657,
        "image_gen_end_token_id": 151658,
        "image_gen_pad_token_id": 151659,
    },
}
"""The config.json of the released weights, as far as it matters."""
NEVER_USED = {f"image_gen_projector{end}.ln_q.{kind}" for end in ("", "_out") for kind in ("weight", "bias")}


def tiny_config() -> dict[str, Any]:
    meta = load_golden("b4_v11").meta["config"]
    return {**meta, "rope_scaling": {**meta["rope_scaling"], "type": "mrope"}}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model as the authors publish theirs."""
    gold = load_golden("b4_v11")
    state = released_state(gold)
    for key, shape in gold.meta["keys"].items():
        if key.endswith("zero_k_bias"):
            state[key] = torch.zeros(shape)
        elif key.endswith(BUFFERS):
            state[key] = 2 ** torch.arange(shape[0] - 1, -1, -1)
    assert len(state) == len(gold.meta["keys"])
    return write_published(tmp_path_factory.mktemp("in") / "released", state, tiny_config())


@pytest.fixture(scope="module")
def ours(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "ours"
    convert(released, out, scales=(1, 2, 4, 6, 8))
    return out


# Full size


def test_a_full_size_release_fills_the_model_and_each_key_is_used_once() -> None:
    meta = load_golden("keys/vargpt_v11_7b2b").meta
    buffers = set(meta["buffers"])
    kinds = {key: torch.int64 if key.endswith("mask") else torch.bfloat16 for key in meta["keys"]}
    state = {key: torch.empty(shape, dtype=kinds[key], device="meta") for key, shape in meta["keys"].items()}
    assert layouts.detect_layout(state) == "vargpt_v1_1"
    converted, derived = layouts.from_official(state)
    assert set(derived) == buffers and len(converted) + len(derived) == len(state) == meta["n_keys"] == 1706
    sections = whole_sections(sizes_of_qwen2_vl(converted, FULL), unused_layer_norm=True)
    config = VARGPTConfig.from_dict(sections)
    with torch.device("meta"):
        model = VARGPT(config)
    layouts.load(model, converted)
    assert sum(each.numel() for each in model.parameters()) == meta["n_params"] == 10_948_395_235
    parts = {"sos_embedding": "start_embedding", "vargpt_gen": "visual_decoder", "vae_local": "image_tokenizer"}
    for theirs, part in parts.items():
        count = sum(each.numel() for each in getattr(model, part).parameters())
        assert count == meta["params_by_part"][theirs]
    assert config.picture_length == 2560 and config.tokenizer.picture_shape == (512, 512)
    back = layouts.to_official(converted, "vargpt_v1_1")
    assert {key: list(each.shape) for key, each in back.items()} == meta["keys"]
    written = v1_1_config(sections, "bfloat16")
    assert {key: written[key] for key in FULL if key not in ("vision_config", "special_tokens")} == {
        key: FULL[key] for key in FULL if key not in ("vision_config", "special_tokens")
    }
    assert FULL["special_tokens"].items() <= written["special_tokens"].items()
    assert FULL["vision_config"].items() <= written["vision_config"].items()


# Bytes


def test_a_release_goes_in_and_out_with_equal_bytes(released: Path, ours: Path, tmp_path: Path) -> None:
    convert(ours, tmp_path / "back", "vargpt_v1_1")
    assert_same_bytes(read(released), read(tmp_path / "back"))
    assert read(released).keys() >= NEVER_USED
    convert(tmp_path / "back", tmp_path / "again", scales=(1, 2, 4, 6, 8))
    for name in ("config.json", "model.safetensors"):
        assert (ours / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_half_precision_stays_half(released: Path, tmp_path: Path) -> None:
    half = {key: each if key.endswith("mask") else each.bfloat16() for key, each in read(released).items()}
    folder = write_published(tmp_path / "half", half, tiny_config())
    convert(folder, tmp_path / "back", "vargpt_v1_1", scales=(1, 2, 4, 6, 8))
    assert_same_bytes(half, read(tmp_path / "back"))


@torch.no_grad()
def test_the_golden_model_gives_the_same_after_the_trip(ours: Path) -> None:
    gold = load_golden("b4_v11")
    model = VARGPT.from_pretrained(ours)
    assert model.config.settings == golden_config(gold).settings
    assert model.config.decoder.start_rows == 121
    assert model.config.language.options["mrope_section"] == gold.meta["config"]["rope_scaling"]["mrope_section"]
    model.config.decoder.class_dropout = 0.0
    with golden_patches(model):
        output = model(golden_batch(gold, "train"), as_in_training=True)
    torch.testing.assert_close(output.image_logits, gold.tensors["eval_dpo.bit_logits"], rtol=0, atol=1e-4)


def test_a_model_of_one_start_row_gets_the_released_table(tmp_path: Path) -> None:
    model = VARGPT(golden_config(load_golden("b4_v11"), unused_layer_norm=False))
    small = replace(model.config.decoder, start_rows=1)
    model = VARGPT(replace(model.config, decoder=small))
    model.save_pretrained(tmp_path / "own")
    lines = convert(tmp_path / "own", tmp_path / "out", "vargpt_v1_1")
    assert any("sos_embedding.weight has 121 rows, of which the last is used" in line for line in lines)
    table = read(tmp_path / "out")["sos_embedding.weight"]
    assert table.shape == (121, 128) and torch.equal(table[-1:], model.start_embedding.weight) and not table[:-1].any()
    assert torch.equal(read(tmp_path / "out")["image_gen_projector.ln_q.weight"], torch.ones(128))
    with pytest.raises(UserError, match=r"^--to vargpt_v1_1: the vision tower is 'clip'; .* 'qwen2_vl' alone"):
        small_v1_1().save_pretrained(tmp_path / "clip")
        convert(tmp_path / "clip", tmp_path / "none", "vargpt_v1_1")


# Qwen2-VL


def tiny_qwen2_vl(folder: Path) -> Any:
    torch.manual_seed(0)
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 112, "max_position_embeddings": 512, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    config = AutoConfig.for_model(
        "qwen2_vl", text_config=text, vision_config=vision, image_token_id=100, video_token_id=99,
        vision_start_token_id=98, vision_end_token_id=97, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen2VLForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_qwen2_vl_comes_back_and_says_the_same(tmp_path: Path) -> None:
    theirs = tiny_qwen2_vl(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    checkpoint = open_checkpoint(tmp_path / "ours")
    assert checkpoint.parts == ("language_model", "vision_tower", "vision_projector")
    convert(tmp_path / "ours", tmp_path / "back", "qwen2_vl")
    assert_same_bytes(read(tmp_path / "theirs"), read(tmp_path / "back"))
    again = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    assert torch.equal(again(ids).logits, theirs(ids).logits)
    # its parts as first weights of a model of ours, by the folder that transformers wrote
    language, vision = checkpoint.sections["language"], checkpoint.sections["vision"]
    values = small_model().config.to_dict() | {"language": language, "vision": vision}
    model = VARGPT(VARGPTConfig.from_dict(values))
    where = str(tmp_path / "theirs")
    init = InitFrom(language_model=where, vision_tower=where, vision_projector=where, new_rows="keep")
    chosen, _ = choose(model, init)
    model.load_state_dict({key: each.part() for key, each in chosen.items()}, strict=False)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(model.eval().language_model(ids), theirs(ids).logits, **close)


def test_names_in_memory_are_read_too(tmp_path: Path) -> None:
    theirs = tiny_qwen2_vl(tmp_path / "theirs")
    named: State = dict(theirs.state_dict())
    assert any(key.startswith("model.visual.") for key in named)
    saved = read(tmp_path / "theirs")
    one, two = (layouts.from_official(state, layouts.detect_layout(state)).state for state in (named, saved))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# Bits that do not fit


def test_bits_that_do_not_fit_the_checkpoint_are_told(ours: Path) -> None:
    model = small_v1_1()
    with pytest.raises(UserError, match=r"16 bits a position, but model\.tokenizer\.code_size is 6"):
        choose(model, InitFrom(image_tokenizer=str(ours)))
    with pytest.raises(UserError, match=r"draws 16 bits a token, but model\.tokenizer has 6"):
        choose(model, InitFrom(visual_decoder=str(ours)))


def test_what_is_stored_and_never_used_gets_no_gradient(ours: Path) -> None:
    model = VARGPT.from_pretrained(ours).train()
    model.config.decoder.class_dropout = 0.0
    gold = load_golden("b4_v11")
    model(golden_batch(gold, "train")).loss.backward()
    assert model.generation_projector_in.ln_q.weight.grad is None
    rows: Tensor = model.start_embedding.weight.grad.abs().sum(1)
    assert rows.nonzero().flatten().tolist() == [120]
