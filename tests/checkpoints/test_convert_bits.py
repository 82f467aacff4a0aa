"""Image tokenizers in bits in and out of Infinity's files: names, bytes, pictures, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.test_convert import State, assert_same_bytes
from tests.golden import load_golden
from tests.models.cases import small_model
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.hub import VARGPT, preprocessor
from vargpt_lightning.checkpoints.init_from import choose
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.checkpoints.published import bit_tokenizers, layouts
from vargpt_lightning.checkpoints.published.infer_config import sizes_of
from vargpt_lightning.inference.tokenizer import load_tokenizer
from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.build import build_tokenizer
from vargpt_lightning.recipe.init_from import InitFrom
from vargpt_lightning.utils.errors import UserError

TINY = TokenizerConfig(
    kind="bits", scales=(1, 2, 4), channels=8, channel_multipliers=(1, 2), residual_blocks=1, code_size=6
)
COUNTS = {16: 109_970_579, 24: 110_044_315, 32: 110_118_051, 64: 110_412_995, 14: 81_624_209}


@pytest.fixture(scope="module")
def tokenizer() -> BitTokenizer:
    torch.manual_seed(0)
    built = build_tokenizer(TINY)
    assert isinstance(built, BitTokenizer)
    return built.eval()


@pytest.fixture(scope="module")
def released(tokenizer: BitTokenizer) -> State:
    """The tiny tokenizer as Infinity's authors publish theirs."""
    own = {f"image_tokenizer.{key}": value for key, value in tokenizer.state_dict().items()}
    state: Any = layouts.to_official(own, "bsq")
    assert len(state) == len(own) + 2
    return state


@pytest.fixture
def file(released: State, tmp_path: Path) -> Path:
    torch.save({"vae": released, "optimizer": {"steps": 3}}, tmp_path / "infinity_vae.pth")
    return tmp_path / "infinity_vae.pth"


def published(bits: int) -> State:
    """The keys and shapes of a full-size release, without data."""
    meta = load_golden(f"keys/infinity_vae_d{14 if bits == 14 else 32}").meta
    changing = ("encoder.conv_out.", "quantizer.", "quantize.")
    shapes = {key: list(shape) for key, shape in meta["keys"].items()}
    for key, shape in shapes.items():
        if key.startswith(changing):
            shape[0] = bits
        elif key == "decoder.conv_in.conv.weight":
            shape[1] = bits
    assert len(shapes) == meta["n_keys"] == (226 if bits == 14 else 270)
    kinds = {key: torch.int64 if key in meta["buffers"] else torch.float32 for key in shapes}
    return {key: torch.empty(shape, dtype=kinds[key], device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("bits", COUNTS)
@pytest.mark.parametrize("old", [False, True])
def test_a_release_fills_a_tokenizer_and_each_key_is_used_once(bits: int, old: bool) -> None:
    """Full size; note 15: the type of 14 bits is as good as the others, in training too."""
    state = published(bits)
    if old:  # names of before the layers were wrapped
        layers = {bit_tokenizers.unwrapped(key): state[key] for key in state if key not in bit_tokenizers.MASKS}
        state = layers | {key: state[key] for key in bit_tokenizers.MASKS}
    assert layouts.detect_layout(state) == "bsq"
    converted = layouts.from_official(state)
    assert len(converted.state) + len(converted.derived) == len(state)
    assert sorted(converted.derived) == sorted(bit_tokenizers.MASKS)
    config = sizes_of(converted.state)["tokenizer"]
    multipliers = (1, 2, 4, 4) if bits == 14 else (1, 2, 4, 4, 4)
    expected = TokenizerConfig(
        kind="bits",
        scales=(1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64),
        channels=128,
        channel_multipliers=multipliers,
        code_size=bits,
        patchify=bits == 14,
    )
    assert config == expected and config.picture_size == 1024
    with torch.device("meta"):
        model = build_tokenizer(config)
    layouts.load(model, {key.removeprefix("image_tokenizer."): value for key, value in converted.state.items()})
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[bits]
    back = layouts.to_official(converted.state, "bsq")
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in published(bits).items()
    }


def test_masks_are_the_worth_of_each_bit() -> None:
    """As `2 ** torch.arange(d - 1, -1, -1)` gives them, the overflow of a 64th bit included."""
    for bits in (3, 64):
        made = bit_tokenizers.masks({"encoder.conv_out.conv.weight": torch.empty(bits, 1, 3, 3)})
        assert list(made) == ["quantizer.lfq.mask", "quantize.lfq.mask"]
        expected = [2**place for place in reversed(range(bits))]
        if bits == 64:
            expected[0] = -(2**63)
        assert made["quantize.lfq.mask"].tolist() == expected and made["quantize.lfq.mask"].dtype == torch.int64


def test_a_file_goes_in_and_out_with_equal_bytes(released: State, file: Path, tmp_path: Path) -> None:
    convert(file, tmp_path / "ours", scales=(1, 2, 4))
    convert(tmp_path / "ours", tmp_path / "back", "infinity")
    assert [each.name for each in (tmp_path / "back").iterdir()] == ["infinity_vae_d6.pth"]
    stored = torch.load(tmp_path / "back/infinity_vae_d6.pth", weights_only=True)
    assert list(stored) == ["vae"]
    assert_same_bytes(released, stored["vae"])
    convert(tmp_path / "back/infinity_vae_d6.pth", tmp_path / "again", scales=(1, 2, 4))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_older_names_and_half_precision_are_read(released: State, tmp_path: Path) -> None:
    bare = {bit_tokenizers.unwrapped(key): value.half() for key, value in released.items() if key.endswith("weight")}
    bare |= {bit_tokenizers.unwrapped(key): value.half() for key, value in released.items() if key.endswith("bias")}
    torch.save(bare, tmp_path / "old.pth")
    convert(tmp_path / "old.pth", tmp_path / "out", "infinity")
    stored = torch.load(tmp_path / "out/infinity_vae_d6.pth", weights_only=True)["vae"]
    half = {key: value.half() if value.is_floating_point() else value for key, value in released.items()}
    assert_same_bytes(half, stored)


def test_a_tokenizer_by_itself_says_its_sizes_and_gives_the_same(
    tokenizer: BitTokenizer, file: Path, tmp_path: Path
) -> None:
    convert(file, tmp_path / "ours", scales=(1, 2, (4, 4)))
    sections = open_checkpoint(tmp_path / "ours").sections
    assert json.loads((tmp_path / "ours/preprocessor_config.json").read_text())["drawn"]["size"] == 8
    drawn = {"tokenizer": vars(replace(TINY, scales=(1, (3, 2)), patchify=True))}
    assert preprocessor(drawn)["drawn"]["size"] == [12, 8]
    assert replace(TINY, channel_multipliers=[1, 2]) == TokenizerConfig(**sections["tokenizer"])
    x_B3HW = torch.rand(2, 3, 8, 8) * 2 - 1
    for loaded in (load_tokenizer(file, (TINY, {})), load_tokenizer(file)):
        assert isinstance(loaded.tokenizer, BitTokenizer)
        own = loaded.tokenizer.with_schedule(tokenizer.schedule)
        assert torch.equal(own.encode(x_B3HW), tokenizer.encode(x_B3HW))
        assert torch.equal(own.reconstruct(x_B3HW), tokenizer.reconstruct(x_B3HW))


def bit_model(**changes: Any) -> VARGPT:
    config = replace(small_model().config, tokenizer=replace(TINY, **changes))
    return VARGPT(config)


def test_a_model_begins_with_released_bits(released: State, file: Path, tokenizer: BitTokenizer) -> None:
    model = bit_model(scales=(1, (2, 3)))
    chosen, _ = choose(model, InitFrom(image_tokenizer=str(file)))
    assert {key for key in chosen if key.startswith("image_tokenizer.")} == {
        f"image_tokenizer.{key}" for key in tokenizer.state_dict()
    }
    weight = chosen["image_tokenizer.encoder.conv_out.weight"].part()
    assert torch.equal(weight, released["encoder.conv_out.conv.weight"])


def test_other_bits_than_the_checkpoint_s_are_one_message(file: Path) -> None:
    told = r"has 6 bits a position, but model.tokenizer.code_size is 8; bits are what the weights were trained for"
    with pytest.raises(UserError, match=rf"init_from\.image_tokenizer \(.*\): {told}"):
        choose(bit_model(code_size=8), InitFrom(image_tokenizer=str(file)))
    with pytest.raises(UserError, match=told):
        load_tokenizer(file, (replace(TINY, code_size=8), {}))


def test_the_other_kind_of_codes_is_one_message(file: Path) -> None:
    indices = small_model()
    with pytest.raises(UserError, match=r"is an image tokenizer of bits, but model\.tokenizer\.kind is 'indices'"):
        choose(indices, InitFrom(image_tokenizer=str(file)))
    state = {key: value for key, value in indices.image_tokenizer.state_dict().items()}
    torch.save(state, file.with_name("vae.pth"))
    with pytest.raises(UserError, match=r"is an image tokenizer of indices, but model\.tokenizer\.kind is 'bits'"):
        choose(bit_model(), InitFrom(image_tokenizer=str(file.with_name("vae.pth"))))
    with pytest.raises(UserError, match=r"^--to var: .* draws bits"):
        convert(file, file.with_name("out"), "var", scales=(1, 2, 4))


def test_changed_masks_and_missing_layers_are_named(released: State, tmp_path: Path) -> None:
    torch.save({**released, "quantize.lfq.mask": torch.zeros(6)}, tmp_path / "masks.pth")
    with pytest.raises(UserError, match=r"quantize\.lfq\.mask has other values than its bits make"):
        convert(tmp_path / "masks.pth", tmp_path / "out")
    missing = {key: value for key, value in released.items() if key != "decoder.mid.block_1.norm1.norm.bias"}
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"image_tokenizer\.decoder\.mid\.block_1\.norm1\.bias is missing"):
        convert(tmp_path / "missing.pth", tmp_path / "out")
