"""The multi-scale binary quantizer against the published code's values, and at other sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.data.golden.weights import tensor
from tests.golden import Golden, load_golden
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.bits import BitQuantizer

CASES = ("d16_sq", "d32_sq", "d32_r15", "d8_patchify_r15s")
FLIPPED = [*((case, kind) for case in CASES[:3] for kind in ("bsc_all", "bsc_first3")), (CASES[3], "bsc_all")]


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("b1_bsq")


def quantizer_of(gold: Golden, case: str) -> tuple[BitQuantizer, ScaleSchedule]:
    meta = gold.meta["cases"][case]
    schedule = ScaleSchedule(tuple((height, width) for _, height, width in meta["schedule"]))
    return BitQuantizer(meta["d"], 2 if "patchify" in case else 1), schedule


def unrolled(quantizer: BitQuantizer, schedule: ScaleSchedule, f_BdHW: Tensor, change: Any = None) -> Any:
    """Bits of all scales, inputs of the later ones, and the sum after each."""
    f_hat_BdHW, f_hats, inputs = torch.zeros_like(f_BdHW), [], []
    steps = quantizer.steps(f_BdHW, schedule, change)
    for k, step in enumerate(steps):
        f_hat_BdHW = f_hat_BdHW + step.added_BdHW
        f_hats.append(f_hat_BdHW)
        if k < schedule.num_scales - 1:
            inputs.append(quantizer.next_input(k, f_hat_BdHW, schedule))
    return torch.cat([step.bits_BlD for step in steps], 1), torch.cat(inputs, 1), torch.stack(f_hats, 1)


@pytest.mark.parametrize("case", CASES)
def test_bits_and_inputs_are_the_published_ones(gold: Golden, case: str) -> None:
    quantizer, schedule = quantizer_of(gold, case)
    bits_BLD, inputs_BLD, f_hat_BKdHW = unrolled(quantizer, schedule, gold.tensors[f"{case}.f"])
    assert bits_BLD.dtype == torch.long
    assert torch.equal(bits_BLD, gold.tensors[f"{case}.bits"].long())
    torch.testing.assert_close(inputs_BLD, gold.tensors[f"{case}.inputs"], rtol=0, atol=5e-7)
    if "patchify" not in case:
        torch.testing.assert_close(f_hat_BKdHW, gold.tensors[f"{case}.f_hat"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("case", CASES[:3])
def test_the_gradient_passes_straight_through(gold: Golden, case: str) -> None:
    quantizer, schedule = quantizer_of(gold, case)
    f_BdHW = gold.tensors[f"{case}.f"].clone().requires_grad_()
    z_q_BdHW = unrolled(quantizer, schedule, f_BdHW)[2][:, -1]
    torch.testing.assert_close(z_q_BdHW, gold.tensors[f"{case}.z_q"], rtol=0, atol=5e-7)
    (z_q_BdHW * torch.from_numpy(tensor(101, f"b1.{case}.g", z_q_BdHW.shape, 0))).sum().backward()
    torch.testing.assert_close(f_BdHW.grad, gold.tensors[f"{case}.grad_f"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "kind"), FLIPPED)
def test_flipped_bits_change_later_targets_and_not_their_own(gold: Golden, case: str, kind: str) -> None:
    """Note 10 of the golden data: bitwise self-correction with the published code's draws."""
    quantizer, schedule = quantizer_of(gold, case)
    flat = f"{case}.{kind}.flip_mask"
    flips_BLd = gold.tensors[flat if flat in gold.tensors else f"{flat}_unpatchified"].long()
    flips: dict[int, Tensor] = {}
    start = 0
    for k in range(schedule.num_scales):
        shape = quantizer.shape(schedule, k)
        part_Bld = flips_BLd[:, start : start + shape[0] * shape[1]]
        start += shape[0] * shape[1]
        if part_Bld.shape[1]:
            flips[k] = quantizer.rows(part_Bld.transpose(1, 2).unflatten(2, shape))
    change = lambda k, bits_BlD: bits_BlD ^ flips[k] if k in flips else bits_BlD  # noqa: E731
    bits_BLD, inputs_BLD, _ = unrolled(quantizer, schedule, gold.tensors[f"{case}.f"], change)
    assert torch.equal(bits_BLD, gold.tensors[f"{case}.{kind}.bits"].long())
    torch.testing.assert_close(inputs_BLD, gold.tensors[f"{case}.{kind}.inputs"], rtol=0, atol=5e-7)
    first = schedule.slices[0]
    assert torch.equal(bits_BLD[:, first], gold.tensors[f"{case}.bits"].long()[:, first])


def test_flipping_nothing_changes_nothing(gold: Golden) -> None:
    quantizer, schedule = quantizer_of(gold, "d16_sq")
    f_BdHW = gold.tensors["d16_sq.f"]
    plain, kept = unrolled(quantizer, schedule, f_BdHW), unrolled(quantizer, schedule, f_BdHW, lambda k, bits: bits)
    assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))


def test_codes_are_on_the_unit_sphere_and_sums_are_those_of_codes() -> None:
    """Note 8: the published straight-through codes are these but for rounding, and exactly so at 16 bits alone."""
    for channels in (14, 16, 32, 64):
        quantizer, schedule = BitQuantizer(channels), ScaleSchedule((1, 2, 4))
        torch.manual_seed(channels)
        f_BdHW = torch.randn(2, channels, 4, 4)
        bits_BLD, _, f_hat_BKdHW = unrolled(quantizer, schedule, f_BdHW)
        codes_BLD = quantizer.embed(bits_BLD)
        assert torch.equal(codes_BLD.abs(), torch.full_like(codes_BLD, channels**-0.5))
        f_hat_BdHW = quantizer.empty(2, schedule, f_BdHW.device)
        for k, part in enumerate(schedule.slices):
            h_Bdhw = quantizer.map(codes_BLD[:, part], schedule.shapes[k])
            f_hat_BdHW, _ = quantizer.accumulate(k, f_hat_BdHW, h_Bdhw, schedule)
        torch.testing.assert_close(f_hat_BdHW, f_hat_BKdHW[:, -1], rtol=0, atol=5e-7)


def test_a_residual_of_nothing_is_bit_0() -> None:
    """Note 8: at 16 bits a code is 1/4, and features on that grid leave exact zeros over."""
    quantizer, schedule = BitQuantizer(16), ScaleSchedule((1, 2))
    f_BdHW = torch.full((1, 16, 2, 2), 0.25)
    bits_BLD = unrolled(quantizer, schedule, f_BdHW)[0]
    assert bits_BLD[:, 0].all() and not bits_BLD[:, 1:].any()
    assert not unrolled(quantizer, schedule, torch.zeros(1, 16, 2, 2))[0][:, 0].any()


def test_memory_format_decides_nothing() -> None:
    """Note 9: maps resized in channels-last differ in the last bits; here they are made contiguous first."""
    quantizer, schedule = BitQuantizer(24), ScaleSchedule((1, (2, 3), (5, 7)))
    torch.manual_seed(0)
    f_BdHW = torch.randn(2, 24, 5, 7)
    plain = unrolled(quantizer, schedule, f_BdHW)
    other = unrolled(quantizer, schedule, f_BdHW.contiguous(memory_format=torch.channels_last))
    assert all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))


def test_bits_of_a_square_lie_channel_by_channel_row_by_row() -> None:
    """Note 14: channel c at offset (y, x) of a 2 x 2 square is bit 4 c + 2 y + x."""
    quantizer = BitQuantizer(14, 2)
    h_Bdhw = torch.randint(0, 2, (2, 14, 6, 4))
    rows_BlD = quantizer.rows(h_Bdhw)
    assert quantizer.bits == 56 and rows_BlD.shape == (2, 6, 56)
    for c, y, x in ((0, 0, 1), (3, 1, 0), (13, 1, 1)):
        expected_Bl = h_Bdhw[:, c, y::2, x::2].flatten(1)
        assert torch.equal(rows_BlD[:, :, 4 * c + 2 * y + x], expected_Bl)
    assert torch.equal(quantizer.map(rows_BlD, (3, 2)), h_Bdhw)


def test_scales_see_area_means_and_add_enlarged_codes() -> None:
    """The definition, step by step, on a schedule of rectangles."""
    quantizer, schedule = BitQuantizer(3), ScaleSchedule((1, (2, 3), (4, 6)))
    torch.manual_seed(1)
    f_BdHW = torch.randn(1, 3, 4, 6)
    bits_BLD = unrolled(quantizer, schedule, f_BdHW)[0]
    rest_BdHW = f_BdHW.clone()
    for k, (height, width) in enumerate(schedule.shapes):
        mean_Bdhw = rest_BdHW.unflatten(2, (height, -1)).unflatten(4, (width, -1)).mean((3, 5))
        bits_Bdhw = (mean_Bdhw > 0).long()
        assert torch.equal(bits_BLD[:, schedule.slices[k]], bits_Bdhw.flatten(2).transpose(1, 2))
        code_Bdhw = (2 * bits_Bdhw - 1) / 3**0.5
        rest_BdHW = rest_BdHW - F.interpolate(code_Bdhw, (4, 6), mode="bilinear", align_corners=False)


def test_half_precision_features_are_quantized_in_float32() -> None:
    quantizer, schedule = BitQuantizer(16), ScaleSchedule((1, 2, 4))
    f_BdHW = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = unrolled(quantizer, schedule, f_BdHW)
    assert torch.equal(found[0], unrolled(quantizer, schedule, f_BdHW.float())[0])
    assert found[1].dtype == found[2].dtype == torch.float32
