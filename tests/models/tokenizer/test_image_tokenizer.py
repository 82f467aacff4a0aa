"""The image tokenizer against the published code's values, and at other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.golden import Golden, fill_tokenizer, load_golden, pictures
from tests.ranks import run_ranks, said
from tests.rounding import assert_same_but_rounding
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.quantizer import Phi, phi_index_table

GOLDEN_SIZES: dict[str, Any] = {"scales": (1, 2, 3, 4), "channels": 32, "code_size": 8, "vocabulary": 64}
# Three resolutions (4x down-sampling) and a width that 32 groups do not divide.
SMALL: dict[str, Any] = {
    "scales": (2, 3, 7, 12),
    "channels": 12,
    "channel_multipliers": (1, 2, 3),
    "residual_blocks": 1,
    "code_size": 5,
    "vocabulary": 37,
}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("a1_vqvae_small")


@pytest.fixture(scope="module")
def tokenizer(gold: Golden) -> ImageTokenizer:
    model = ImageTokenizer(**GOLDEN_SIZES).eval()
    assert fill_tokenizer(model) == gold.meta["weights"]["sha256"]
    return model


@pytest.fixture
def small() -> ImageTokenizer:
    torch.manual_seed(0)
    model = ImageTokenizer(**SMALL)
    torch.nn.init.normal_(model.quantize.embedding.weight, std=0.3)
    return model.eval()


# The published code's values


def test_names_and_shapes_are_the_published_ones(gold: Golden, tokenizer: ImageTokenizer) -> None:
    ours = {key: list(value.shape) for key, value in tokenizer.state_dict().items()}
    assert ours == {key: shape for key, (shape, _) in gold.meta["keys"].items()}


@torch.no_grad()
def test_features(gold: Golden, tokenizer: ImageTokenizer) -> None:
    close(tokenizer.encoder(gold.tensors["x"]), gold.tensors["enc"])
    close(tokenizer.features(gold.tensors["x"]), gold.tensors["f"])


def test_indices_are_equal(gold: Golden, tokenizer: ImageTokenizer) -> None:
    assert torch.equal(tokenizer.encode(gold.tensors["x"]), gold.tensors["idx"])
    assert torch.equal(tokenizer.quantize_features(gold.tensors["f"]), gold.tensors["idx"])


def test_next_scale_inputs(gold: Golden, tokenizer: ImageTokenizer) -> None:
    close(tokenizer.next_scale_inputs(gold.tensors["idx"]), gold.tensors["var_input"])


def test_f_hat_after_each_scale(gold: Golden, tokenizer: ImageTokenizer) -> None:
    close(tokenizer.f_hat_per_scale(gold.tensors["idx"]), gold.tensors["f_hat_per_scale"])


def test_reconstruction_and_progressive_picture(gold: Golden, tokenizer: ImageTokenizer) -> None:
    close(tokenizer.reconstruct(gold.tensors["x"]), gold.tensors["rec"])
    pictures_K = tokenizer.progressive(gold.tensors["idx"])
    assert len(pictures_K) == 4
    close(pictures_K[1], gold.tensors["progressive_rec_scale1"])
    close(pictures_K[3], gold.tensors["rec"])


def test_normalised_codes_with_one_shared_phi(gold: Golden) -> None:
    model = ImageTokenizer(**GOLDEN_SIZES, phi="shared", normalize_codes=True).eval()
    assert fill_tokenizer(model) == gold.meta["weights"]["znorm_sha256"]
    assert torch.equal(model.encode(gold.tensors["x"]), gold.tensors["idx_znorm_sharedphi"])


def test_which_phi_serves_which_scale(gold: Golden) -> None:
    for name, table in gold.meta["phi_index_table"].items():
        count, scales = (int(part[2 if part[1] == "N" else 1 :]) for part in name.split("_")[1:])
        assert list(phi_index_table(count, scales)) == table, name


@pytest.mark.parametrize(
    ("phi", "names", "order"),
    [
        ("shared", ["qresi"], [0] * 10),
        ("partial", [f"qresi_ls.{i}" for i in range(4)], [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        ("separate", [str(i) for i in range(10)], list(range(10))),
    ],
)
def test_phi_variants_apply_their_own_weights(phi: Any, names: list[str], order: list[int]) -> None:
    sizes = {**SMALL, "scales": tuple(range(1, 11))}
    quantizer = ImageTokenizer(**sizes, phi=phi).quantize
    blends = [module for module in quantizer.quant_resi.modules() if isinstance(module, Phi)]
    assert [name for name, module in quantizer.quant_resi.named_modules() if isinstance(module, Phi)] == names
    for i, blend in enumerate(blends):
        torch.nn.init.zeros_(blend.weight)
        torch.nn.init.constant_(blend.bias, float(i))
    for k, size in enumerate(sizes["scales"]):
        added = quantizer.contribution(k, torch.ones(1, 5, size, size))
        torch.testing.assert_close(added, torch.full((1, 5, 10, 10), 0.5 + 0.5 * order[k]))


# The published code's values in training


def test_training_losses_and_gradients() -> None:
    gold = load_golden("a1_vqvae_train")
    model = ImageTokenizer(**GOLDEN_SIZES)
    fill_tokenizer(model)
    x_B3HW = pictures(2, 2, 64)
    out = model(x_B3HW)
    close(out.reconstruction, gold.tensors["rec"])
    torch.testing.assert_close(out.vq_loss, gold.tensors["vq_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(out.codebook_loss + out.commitment_loss, out.vq_loss)
    torch.testing.assert_close(out.commitment_loss, 0.25 * out.codebook_loss)
    assert torch.equal(out.idx_BL, load_golden("a1_vqvae_small").tensors["idx"])
    # The L1 loss's gradient is a sign, which rounding flips where a pixel is met almost exactly: take the golden signs.
    sign_B3HW = (gold.tensors["rec"] - x_B3HW).sign() / x_B3HW.numel()
    torch.autograd.backward([out.reconstruction, out.vq_loss], [sign_B3HW, torch.ones(())])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(gradients) == set(gold.meta["grad_norm_step0"])
    for name, norm in gold.meta["grad_norm_step0"].items():
        assert gradients[name] is not None, name
        # Biases before a norm of single channels have gradients of pure rounding, about 1e-8. The last bias sums signs
        # that cancel: its golden value itself is 1e-5 away from the exact sum.
        relative = 5e-5 if name == "decoder.conv_out.bias" else 1e-5
        assert gradients[name].norm().item() == pytest.approx(norm, rel=relative, abs=1e-6), name
    for name, gradient in gold.under("grad.").items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item())


def test_hits_and_usage_after_three_steps() -> None:
    gold = load_golden("a1_vqvae_train")
    model = ImageTokenizer(**GOLDEN_SIZES)
    fill_tokenizer(model)
    for step in range(3):
        with torch.no_grad():
            out = model(pictures(2 + step, 2, 64))
        assert out.vq_loss.item() == pytest.approx(gold.meta["vq_loss_per_step"][step], rel=1e-5)
        close(model.quantize.ema_vocab_hit_SV, gold.tensors["ema_vocab_hit_SV_after_each_step"][step])
        assert model.usage_per_scale() == gold.meta["usages_per_step"][step]
    assert model.quantize.hit_updates == gold.meta["record_hit_after"]


# Hits


def test_hits_mix_slowly_after_a_hundred_updates(small: ImageTokenizer) -> None:
    small.train()
    x_B3HW = torch.zeros(1, 3, 48, 48)
    with torch.no_grad():
        small(x_B3HW)
    small.quantize.hit_updates = 99
    small.quantize.ema_vocab_hit_SV.zero_()
    small.quantize.ema_vocab_hit_SV[0, 0] = 1.0
    with torch.no_grad():
        small(x_B3HW)
    totals = small.quantize.ema_vocab_hit_SV.sum(dim=1)
    torch.testing.assert_close(totals, torch.tensor([0.9 + 0.4, 0.09, 0.49, 1.44]))


def test_evaluation_records_no_hits(small: ImageTokenizer) -> None:
    small(torch.zeros(1, 3, 48, 48))
    assert not small.quantize.ema_vocab_hit_SV.any()


def hits_of_one_rank(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = ImageTokenizer(**GOLDEN_SIZES)
    fill_tokenizer(model)
    with torch.no_grad():
        model(pictures(2, 2, 64)[rank : rank + 1])
    torch.save((model.quantize.ema_vocab_hit_SV, model.usage_per_scale()), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_hits_are_summed_over_ranks(tmp_path: Path) -> None:
    gold = load_golden("a1_vqvae_train")
    assert run_ranks(2, tmp_path / "log", hits_of_one_rank, tmp_path) == [0, 0], said(tmp_path / "log", 2)
    for rank in range(2):
        hits_SV, usage = torch.load(tmp_path / f"{rank}.pt")
        close(hits_SV, gold.tensors["ema_vocab_hit_SV_after_each_step"][0])
        assert usage == gold.meta["usages_per_step"][0]


# Any size


def test_another_size_by_configuration(small: ImageTokenizer) -> None:
    assert (small.downsampling, small.picture_size, small.code_size, small.vocabulary) == (4, 48, 5, 37)
    x_B3HW = pictures(0, 2, 48)
    f_BCHW = small.features(x_B3HW)
    idx_BL = small.encode(x_B3HW)
    assert f_BCHW.shape == (2, 5, 12, 12)
    assert idx_BL.shape == (2, 4 + 9 + 49 + 144) and idx_BL.dtype == torch.int64
    assert idx_BL.min() >= 0 and idx_BL.max() < 37
    assert small.next_scale_inputs(idx_BL).shape == (2, 202, 5)
    assert small.f_hat_per_scale(idx_BL).shape == (4, 2, 5, 12, 12)
    assert small.decode_indices(idx_BL).shape == (2, 3, 48, 48)


def test_later_scales_reconstruct_what_earlier_ones_left(small: ImageTokenizer) -> None:
    f_BCHW = torch.randn(2, 5, 12, 12)
    steps = small.quantize.steps(f_BCHW)
    f_hat_KBCHW = small.f_hat_per_scale(small.quantize_features(f_BCHW))
    torch.testing.assert_close(sum(step.added_BCHW for step in steps), f_hat_KBCHW[-1])
    rest_BlC = (f_BCHW - f_hat_KBCHW[-2]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(steps[-1].rest_NC, rest_BlC.reshape(-1, 5), rtol=1e-5, atol=1e-5)


def test_accumulating_by_hand_gives_the_same_inputs_and_features(small: ImageTokenizer) -> None:
    idx_BL = torch.randint(37, (2, 206), generator=torch.Generator().manual_seed(0))
    inputs, f_hat_BCHW = [], small.empty_f_hat(2)
    for k, tokens in enumerate(small.schedule.slices):
        rows_BlC = small.embed_codes(idx_BL[:, tokens])
        map_BCss = rows_BlC.transpose(1, 2).unflatten(2, (small.schedule.sizes[k],) * 2)
        given = f_hat_BCHW.clone()
        from_rows, _ = small.accumulate(k, f_hat_BCHW, rows_BlC)
        after, input_BlC = small.accumulate(k, f_hat_BCHW, map_BCss)
        assert torch.equal(from_rows, after) and torch.equal(f_hat_BCHW, given)
        f_hat_BCHW = after
        if input_BlC is not None:
            inputs.append(input_BlC)
    assert input_BlC is None
    close(torch.cat(inputs, dim=1), small.next_scale_inputs(idx_BL))
    close(f_hat_BCHW, small.f_hat_per_scale(idx_BL)[-1])


def test_pictures_are_clamped_but_training_reconstructions_are_not(small: ImageTokenizer) -> None:
    torch.nn.init.constant_(small.decoder.conv_out.bias, 3.0)
    x_B3HW = pictures(0, 1, 48)
    assert small.reconstruct(x_B3HW).max() == 1.0
    assert small(x_B3HW).reconstruction.max() > 1.0


def test_one_scale_alone(small: ImageTokenizer) -> None:
    model = ImageTokenizer(**{**SMALL, "scales": (12,)})
    idx_BL = model.encode(pictures(0, 1, 48))
    assert idx_BL.shape == (1, 144)
    assert model.next_scale_inputs(idx_BL).shape == (1, 0, 5)


def test_without_attention_there_are_no_attention_weights() -> None:
    names = [name for name, _ in ImageTokenizer(**SMALL, attention=False).named_parameters()]
    assert not [name for name in names if "attn" in name]
    assert [name for name, _ in ImageTokenizer(**SMALL).named_parameters() if "attn" in name]


def test_zero_ratio_leaves_the_blends_out() -> None:
    model = ImageTokenizer(**SMALL, residual_ratio=0.0)
    assert not list(model.quantize.quant_resi.parameters())
    assert model.reconstruct(pictures(0, 1, 48)).shape == (1, 3, 48, 48)


def test_published_size_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = ImageTokenizer()
    assert sum(parameter.numel() for parameter in model.parameters()) == 108_948_355
    assert (model.picture_size, model.schedule.num_tokens) == (256, 680)


# Precision, memory format, loading


@torch.no_grad()
def test_channels_last_keeps_its_format_and_values(small: ImageTokenizer) -> None:
    x_B3HW = pictures(0, 2, 48)
    features, picture = small.features(x_B3HW), small.reconstruct(x_B3HW)
    formats = []
    small.to(memory_format=torch.channels_last)
    for module in [*small.encoder.modules(), *small.decoder.modules()]:
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, given, __: formats.append(given[0].is_contiguous(memory_format=torch.channels_last))
            )
    assert_same_but_rounding(small.features(x_B3HW.to(memory_format=torch.channels_last)), features)
    assert_same_but_rounding(small.reconstruct(x_B3HW.to(memory_format=torch.channels_last)), picture)
    assert formats and all(formats)


def test_autocast_does_not_change_the_codes(small: ImageTokenizer) -> None:
    f_BCHW = torch.randn(2, 5, 12, 12)
    idx_BL = small.quantize_features(f_BCHW)
    inputs = small.next_scale_inputs(idx_BL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(small.quantize_features(f_BCHW), idx_BL)
        assert torch.equal(small.next_scale_inputs(idx_BL), inputs)


def test_low_precision_weights_draw(small: ImageTokenizer) -> None:
    small.bfloat16()
    x_B3HW = pictures(0, 1, 48)
    assert small.reconstruct(x_B3HW).shape == x_B3HW.shape
    assert small.next_scale_inputs(small.encode(x_B3HW)).dtype == torch.float32


def test_weights_of_another_schedule_load_without_their_hits(small: ImageTokenizer) -> None:
    small.quantize.ema_vocab_hit_SV.fill_(7.0)
    other = ImageTokenizer(**{**SMALL, "scales": (1, 2, 3, 4, 12)})
    other.load_state_dict(small.state_dict())
    assert torch.equal(other.quantize.embedding.weight, small.quantize.embedding.weight)
    assert not other.quantize.ema_vocab_hit_SV.any()
    same = ImageTokenizer(**SMALL)
    same.load_state_dict(small.state_dict())
    assert (same.quantize.ema_vocab_hit_SV == 7.0).all()


# Mistakes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scales", (2, 1)),
        ("channels", 0),
        ("channel_multipliers", ()),
        ("channel_multipliers", (1, 0)),
        ("residual_blocks", 0),
        ("code_size", 0),
        ("vocabulary", -1),
        ("residual_ratio", 1.5),
        ("phi", "other"),
        ("phi_count", 0),
        ("quant_kernel", 2),
    ],
)
def test_bad_settings_name_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key}: got .*, expected") as error:
        ImageTokenizer(**{**SMALL, key: value})
    assert repr(value) in str(error.value)


def test_pictures_and_indices_of_a_wrong_shape_are_refused(small: ImageTokenizer) -> None:
    with pytest.raises(ValueError, match=r"pictures: got shape \(1, 3, 64, 64\), expected \(batch, 3, 48, 48\)"):
        small.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"indices: got shape \(1, 30\), expected \(batch, 206\)"):
        small.decode_indices(torch.zeros(1, 30, dtype=torch.int64))
