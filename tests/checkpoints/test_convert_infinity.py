"""Infinity's decoder in and out of its files: names, bytes, what lies around it in a training checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.test_convert import assert_same_bytes, write_published
from tests.golden import load_golden
from tests.models.bitwise.cases import golden_decoder, small_text
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.utils.errors import UserError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def decoder() -> BitwiseDecoder:
    return golden_decoder(load_golden("b3_infinity_gen"), "sq").eval()


@pytest.fixture(scope="module")
def released(decoder: BitwiseDecoder) -> State:
    """The golden decoder under the names of the released files, its constants among them."""
    own = {f"visual_decoder.{key}": value for key, value in decoder.state_dict().items()}
    state: Any = layouts.to_official(own, "infinity")
    assert len(state) == len(own) + 9  # a zero bias for the pool, and two a block
    return state


def written(out: Path) -> State:
    (file,) = out.glob("infinity_*.pth")
    return torch.load(file, weights_only=True)


def test_a_flat_file_goes_in_and_out_with_equal_bytes(released: State, tmp_path: Path) -> None:
    torch.save(released, tmp_path / "infinity_tiny.pth")
    convert(tmp_path / "infinity_tiny.pth", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", "infinity")
    assert [file.name for file in (tmp_path / "back").iterdir()] == ["infinity_d4w64.pth"]
    assert_same_bytes(released, written(tmp_path / "back"))
    convert(tmp_path / "back/infinity_d4w64.pth", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_half_precision_stays_half(released: State, tmp_path: Path) -> None:
    half = {key: value.bfloat16() for key, value in released.items()}
    torch.save(half, tmp_path / "half.pth")
    convert(tmp_path / "half.pth", tmp_path / "out", "infinity")
    assert_same_bytes(half, written(tmp_path / "out"))


def test_the_8b_s_shards_are_read(released: State, tmp_path: Path) -> None:
    convert(write_published(tmp_path / "shards", released, {"model_type": "infinity"}), tmp_path / "out", "infinity")
    assert_same_bytes(released, written(tmp_path / "out"))


@pytest.mark.parametrize("old", [False, True])
def test_weights_are_found_in_a_training_checkpoint(released: State, tmp_path: Path, old: bool) -> None:
    around = {"epoch": 3, "iter": 17, "acc_str": "", "trainer": {"gpt_fsdp": released, "gpt_opt": {"steps": [1, 2]}}}
    torch.save(around, tmp_path / "ar-ckpt.pth", _use_new_zipfile_serialization=not old)
    convert(tmp_path / "ar-ckpt.pth", tmp_path / "out", "infinity")
    assert_same_bytes(released, written(tmp_path / "out"))
    torch.save({"trainer": {"gpt_fsdp": {"word_embed": 3}}}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"empty\.pth: holds trainer; expected names of tensors"):
        convert(tmp_path / "empty.pth", tmp_path / "none", "infinity")


def test_the_decoder_gives_the_same_after_the_trip(decoder: BitwiseDecoder, released: State, tmp_path: Path) -> None:
    torch.save(released, tmp_path / "tiny.pth")
    convert(tmp_path / "tiny.pth", tmp_path / "ours")
    checkpoint = open_checkpoint(tmp_path / "ours")
    sections = checkpoint.sections
    assert sections["decoder"]["chunks"] == 2 and sections["tokenizer"]["kind"] == "bits"
    again = golden_decoder(load_golden("b3_infinity_gen"), "sq").eval()
    torch.nn.init.zeros_(again.head.weight)
    state = {key.removeprefix("visual_decoder."): value for key, value in load_state(tmp_path / "ours").items()}
    layouts.load(again, state)
    text, inputs_BLD = small_text(width=256), torch.ones(2, 520, 16)
    with torch.no_grad():
        assert torch.equal(again(text, inputs_BLD), decoder(text, inputs_BLD))


def load_state(folder: Path) -> State:
    return load_file(folder / "model.safetensors")


def test_layouts_of_other_codes_are_refused(released: State, tmp_path: Path) -> None:
    torch.save(released, tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"^--to var: .*tiny\.pth draws bits; this layout has a place for indices"):
        convert(tmp_path / "tiny.pth", tmp_path / "out", "var")
    assert not (tmp_path / "out").exists()


def test_what_does_not_belong_is_named(released: State, tmp_path: Path) -> None:
    changed = {**released, "block_chunks.1.module.1.sa.zero_k_bias": torch.ones(64)}
    save_file(changed, tmp_path / "biased.safetensors")
    with pytest.raises(UserError, match=r"block_chunks\.1\.module\.1\.sa\.zero_k_bias has other values"):
        convert(tmp_path / "biased.safetensors", tmp_path / "out", "infinity")
    missing = {key: value for key, value in released.items() if key != "block_chunks.0.module.1.ca.proj.bias"}
    save_file(missing, tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"block_chunks\.0\.module\.1\.ca\.proj\.bias is missing"):
        convert(tmp_path / "missing.safetensors", tmp_path / "out", "infinity")
