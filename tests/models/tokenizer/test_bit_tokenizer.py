"""The image tokenizer in bits against the published code's values, and at other sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden import Golden, fill, load_golden, smooth_images
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.utils.errors import UserError

CASES = {"d16_p16_rect": (200, 192, (96, 64)), "d14_p8_patchify": (300, 64, (64, 64))}
"""Seed and side of the golden pictures, and what is cut of them."""
SMALL: dict[str, Any] = {
    "scales": (1, 2, (3, 2), (6, 4)),
    "channels": 12,
    "channel_multipliers": (1, 2, 3),
    "residual_blocks": 1,
    "bits": 5,
}


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("b2_vae")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def theirs(key: str) -> str:
    """The published name of a weight: with the name of the class that wraps a layer."""
    *before, layer, kind = key.split(".")
    return ".".join([*before, layer, "norm" if layer.startswith("norm") else "conv", kind])


@pytest.fixture(scope="module")
def tokenizer(gold: Golden, case: str) -> BitTokenizer:
    meta = gold.meta["cases"][case]
    config = meta["config"]
    model = BitTokenizer(
        scales=[shape[1:] for shape in meta["schedule"]],
        channels=config["ch"],
        channel_multipliers=config["mult"],
        residual_blocks=config["nres"],
        bits=config["d"],
        patchify="patchify" in case,
    )
    rules = [(name, tuple(rule) if isinstance(rule, list) else rule) for name, rule in gold.meta["fill_rules"]]
    named = [(theirs(key), parameter) for key, parameter in model.named_parameters()]
    assert fill(named, config["seed"], rules) == meta["weights"]["sha256"]
    return model.eval()


@pytest.fixture(scope="module")
def pictures(case: str) -> Tensor:
    seed, side, (height, width) = CASES[case]
    return torch.from_numpy(smooth_images(seed, 2, side, side))[:, :, :height, :width]


@pytest.fixture
def small() -> BitTokenizer:
    torch.manual_seed(0)
    return BitTokenizer(**SMALL)


# The published code's values


@torch.no_grad()
def test_features(gold: Golden, case: str, tokenizer: BitTokenizer, pictures: Tensor) -> None:
    torch.testing.assert_close(tokenizer.features(pictures), gold.tensors[f"{case}.enc"], rtol=0, atol=1e-5)


def test_bits_and_pictures(gold: Golden, case: str, tokenizer: BitTokenizer, pictures: Tensor) -> None:
    bits_BLD = tokenizer.encode(pictures)
    expected_BLd = gold.tensors[f"{case}.bits"].long()  # of single positions
    start, rows = 0, []
    for k in range(tokenizer.schedule.num_scales):
        shape = tokenizer.quantize.shape(tokenizer.schedule, k)
        part_Bld = expected_BLd[:, start : start + shape[0] * shape[1]]
        start += shape[0] * shape[1]
        rows.append(tokenizer.quantize.rows(part_Bld.transpose(1, 2).unflatten(2, shape)))
    assert torch.equal(bits_BLD, torch.cat(rows, 1))
    torch.testing.assert_close(tokenizer.f_hat_per_scale(bits_BLD)[-1], gold.tensors[f"{case}.z_q"], rtol=0, atol=5e-7)
    shown = tokenizer.progressive(bits_BLD)
    torch.testing.assert_close(shown[-1], gold.tensors[f"{case}.rec"], rtol=0, atol=3e-5)
    torch.testing.assert_close(shown[1][:1], gold.tensors[f"{case}.rec_after_two_scales"], rtol=0, atol=3e-5)


def test_loss_and_gradients(gold: Golden, case: str, tokenizer: BitTokenizer, pictures: Tensor) -> None:
    meta = gold.meta["cases"][case]
    tokenizer.zero_grad()
    loss = F.l1_loss(tokenizer(pictures).reconstruction, pictures)
    assert loss.item() == pytest.approx(meta["l1_loss"], rel=1e-5)
    loss.backward()
    found = {theirs(key): parameter.grad for key, parameter in tokenizer.named_parameters()}
    assert set(found) == set(meta["grad_norm"])
    for name, norm in meta["grad_norm"].items():  # biases before a norm have gradients of rounding alone
        assert found[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name


# Other sizes


@torch.no_grad()
def test_codes_inputs_and_pictures_fit_each_other(small: BitTokenizer) -> None:
    x_B3HW = torch.rand(2, 3, 24, 16) * 2 - 1
    assert small.picture_shape == (24, 16) and small.downsampling == 4
    bits_BLD = small.encode(x_B3HW)
    assert bits_BLD.shape == (2, 1 + 4 + 6 + 24, 5) and set(bits_BLD.unique().tolist()) == {0, 1}
    inputs_BLD = small.next_scale_inputs(bits_BLD)
    assert inputs_BLD.shape == (2, 34, 5)
    f_hat_BdHW, inputs = small.empty_f_hat(2), []
    for k, part in enumerate(small.schedule.slices):
        f_hat_BdHW, input_BlD = small.accumulate(k, f_hat_BdHW, small.embed_codes(bits_BLD[:, part]))
        inputs += [] if input_BlD is None else [input_BlD]
    assert torch.equal(torch.cat(inputs, 1), inputs_BLD)
    assert torch.equal(small.decode(f_hat_BdHW), small.reconstruct(x_B3HW))


def test_one_scale_has_no_inputs() -> None:
    model = BitTokenizer(**SMALL | {"scales": ((3, 2),)})
    bits_BLD = model.encode(torch.zeros(1, 3, 12, 8))
    assert bits_BLD.shape == (1, 6, 5) and model.next_scale_inputs(bits_BLD).shape == (1, 0, 5)


def test_weights_serve_any_schedule(small: BitTokenizer) -> None:
    other = small.with_schedule(ScaleSchedule((2, (4, 5))))
    assert other.encoder is small.encoder and small.picture_shape == (24, 16)
    assert other.picture_shape == (16, 20)
    assert other.encode(torch.zeros(1, 3, 16, 20)).shape == (1, 24, 5)


def test_changed_codes_are_fed_and_make_other_targets(small: BitTokenizer) -> None:
    f_BdHW = torch.randn(2, 5, 6, 4)
    bits_BLD, inputs_BLD = small.changed(f_BdHW, lambda k, codes: codes)
    assert torch.equal(bits_BLD, small.quantize_features(f_BdHW))
    torch.testing.assert_close(inputs_BLD, small.next_scale_inputs(bits_BLD), rtol=0, atol=5e-7)
    other_BLD, others_BLD = small.changed(f_BdHW, lambda k, codes: 1 - codes if k == 0 else codes)
    assert torch.equal(other_BLD[:, :1], bits_BLD[:, :1]) and not torch.equal(other_BLD[:, 1:], bits_BLD[:, 1:])
    torch.testing.assert_close(others_BLD[:, :4], -inputs_BLD[:, :4])


def test_wrong_shapes_are_refused_by_name(small: BitTokenizer) -> None:
    with pytest.raises(UserError, match=r"pictures: got shape \(1, 3, 16, 24\), expected \(batch, 3, 24, 16\)"):
        small.encode(torch.zeros(1, 3, 16, 24))
    with pytest.raises(UserError, match=r"indices: got shape \(1, 35\), expected \(batch, 35, 5\)"):
        small.decode_indices(torch.zeros(1, 35, dtype=torch.long))
    with pytest.raises(UserError, match="pictures of 24 x 16 pixels; expected squares"):
        _ = small.picture_size


def test_groups_of_the_norms_are_32_or_24_or_what_fits() -> None:
    model = BitTokenizer(**SMALL | {"channels": 24, "channel_multipliers": (1, 4)})
    norms = [module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.num_channels: norm.num_groups for norm in norms} == {24: 24, 96: 32}


@pytest.mark.parametrize("changes", [{"bits": 0}, {"channels": 0}, {"channel_multipliers": ()}, {"scales": (2, 1)}])
def test_bad_sizes_are_refused(changes: dict[str, Any]) -> None:
    name = next(iter(changes)).replace("bits", "code_size")
    with pytest.raises(UserError, match=f"{name}: got"):
        BitTokenizer(**SMALL | changes)
