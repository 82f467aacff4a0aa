"""The visual decoder against the published code's values, and what it promises at any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from tests.golden import FOLDER, Golden, fill_tokenizer, load_golden
from tests.rounding import assert_same_but_rounding, slack
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.attention import block_causal_attention
from vargpt_lightning.models.decoder.blocks import Block, DropPath
from vargpt_lightning.models.decoder.sampling import Drawing, SamplingSettings
from vargpt_lightning.models.decoder.visual_decoder import DERIVED_BUFFERS, VisualDecoder
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.utils.errors import UserError

SMALL: dict[str, Any] = {"scales": (2, 3, 5), "code_size": 4, "vocabulary": 32, "depth": 3, "width": 32, "heads": 4}
FINE = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
FINER = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def without_derived(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key.rsplit(".", 1)[-1] not in DERIVED_BUFFERS}


def image_loss(logits_BLV: Tensor, idx_BL: Tensor) -> Tensor:
    return F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten())


@pytest.fixture(scope="module", params=["l2norm_aln", "l2norm_sharedaln", "nol2_aln"])
def gold(request: pytest.FixtureRequest) -> Golden:
    return load_golden(f"a2_var_{request.param}")


@pytest.fixture(scope="module")
def tokenizer() -> ImageTokenizer:
    model = ImageTokenizer(scales=(1, 2, 3, 4), channels=32, code_size=8, vocabulary=64).eval()
    fill_tokenizer(model)
    return model


def golden_decoder(gold: Golden, **changes: Any) -> VisualDecoder:
    config = gold.meta["config"]
    settings: dict[str, Any] = {
        "scales": config["patch_nums"],
        "code_size": 8,
        "vocabulary": 64,
        "depth": config["depth"],
        "width": config["embed_dim"],
        "heads": config["num_heads"],
        "classes": config["num_classes"],
        "drop_path": config["drop_path_rate"],
        "shared_adaln": config["shared_aln"],
        "class_dropout": config["cond_drop_rate"],
        "qk_norm": config["attn_l2_norm"],
    }
    model = VisualDecoder(**{**settings, **changes})
    model.load_state_dict(without_derived(gold.under("sd.")))
    return model.eval()


@pytest.fixture(scope="module")
def decoder(gold: Golden) -> VisualDecoder:
    return golden_decoder(gold)


def small_decoder(seed: int = 0, **changes: Any) -> VisualDecoder:
    """Random and far from the tame start of a training, so that every part shows in the logits."""
    torch.manual_seed(seed)
    model = VisualDecoder(**{**SMALL, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def small_inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    first, length = SMALL["scales"][0] ** 2, sum(size**2 for size in SMALL["scales"])
    return torch.arange(batch) + 3, torch.randn(batch, length - first, SMALL["code_size"], generator=seeded(0))


# The published code's values


def test_names_and_shapes_are_the_published_ones(gold: Golden, decoder: VisualDecoder) -> None:
    ours = {key: list(value.shape) for key, value in decoder.state_dict().items()}
    assert ours == without_derived({key: shape for key, (shape, _) in gold.meta["keys"].items()})


@pytest.mark.parametrize("dropped", [False, True])
def test_logits_loss_and_gradients_are_the_published_ones(gold: Golden, dropped: bool) -> None:
    suffix = "_all_dropped" if dropped else ""
    # Training with certain condition dropout gives the dropped values, evaluation keeps every condition.
    model = golden_decoder(gold, class_dropout=1.0).train(dropped)
    logits_BLV = model(gold.tensors["label_B"], gold.tensors["x_BLCv_wo_first_l"])
    torch.testing.assert_close(logits_BLV, gold.tensors[f"logits{suffix}"], rtol=0, atol=1e-4)
    loss = image_loss(logits_BLV, gold.tensors["gt_BL"])
    assert loss.item() == pytest.approx(gold.meta[f"loss_ce{suffix}"], rel=1e-5)
    loss.backward()
    norms = {key: parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    assert norms == pytest.approx(gold.meta[f"grad_norm{suffix}"], rel=1e-3)


def test_single_gradients_and_the_last_scale_are_the_published_ones(gold: Golden) -> None:
    model = golden_decoder(gold)
    logits_BLV = model(gold.tensors["label_B"], gold.tensors["x_BLCv_wo_first_l"])
    last = model.schedule.slices[-1]
    tail = image_loss(logits_BLV[:, last], gold.tensors["gt_BL"][:, last])
    assert tail.item() == pytest.approx(gold.meta["loss_ce_tail"], rel=1e-5)
    image_loss(logits_BLV, gold.tensors["gt_BL"]).backward()
    expected = gold.under("grad.")
    assert expected
    for key, grad in expected.items():
        torch.testing.assert_close(model.get_parameter(key).grad, grad, rtol=1e-3, atol=1e-6)


def shown(tokenizer: ImageTokenizer, drawing: Drawing) -> Tensor:
    return (tokenizer.decode(drawing.f_hat_BCHW) + 1) / 2


def test_greedy_generation_is_the_published_one(
    gold: Golden, decoder: VisualDecoder, tokenizer: ImageTokenizer
) -> None:
    settings = SamplingSettings(top_k=0, top_p=0.0, cfg=1.5, greedy=True)
    drawing = decoder.generate(tokenizer, gold.tensors["label_B"], sampling=settings, keep_logits=True)
    assert torch.equal(drawing.idx_BL, gold.tensors["greedy.idx"])
    torch.testing.assert_close(drawing.logits_BLV, gold.tensors["greedy.guided_logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(shown(tokenizer, drawing), gold.tensors["greedy.img"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "changes"), [("sampled", {}), ("smooth", {"cfg": 4.0, "smooth": True})])
def test_the_same_generator_draws_the_published_indices(
    gold: Golden, decoder: VisualDecoder, tokenizer: ImageTokenizer, name: str, changes: dict[str, Any]
) -> None:
    skip_on_another_torch(gold)
    settings = SamplingSettings(**{"top_k": 30, "top_p": 0.95, "cfg": 1.5, **changes})
    drawing = decoder.generate(tokenizer, gold.tensors["label_B"], sampling=settings, generator=seeded(7))
    assert torch.equal(drawing.idx_BL, gold.tensors[f"{name}.idx"])
    torch.testing.assert_close(
        shown(tokenizer, drawing)[..., ::4, ::4], gold.tensors[f"{name}.img_every4th"], rtol=0, atol=1e-4
    )


def test_random_labels_go_before_the_codes_in_one_stream(
    gold: Golden, decoder: VisualDecoder, tokenizer: ImageTokenizer
) -> None:
    skip_on_another_torch(gold)
    generator = seeded(5)
    labels_B = decoder.random_labels(3, generator)
    drawing = decoder.generate(
        tokenizer, labels_B, sampling=SamplingSettings(top_k=1, top_p=0.0, cfg=1.5), generator=generator
    )
    assert torch.equal(labels_B, gold.tensors["labelnone.label"])
    assert torch.equal(drawing.idx_BL, gold.tensors["labelnone.idx"])


def skip_on_another_torch(gold: Golden) -> None:
    recorded = gold.meta["env"]["torch"].split("+")[0]
    if torch.__version__.split("+")[0] != recorded:
        pytest.skip(f"the random streams were recorded with torch {recorded}")


def test_a_training_starts_as_the_published_code_does() -> None:
    gold = load_golden("a2_init_stats_d8").meta
    torch.manual_seed(0)
    model = VisualDecoder(scales=(1, 2, 3, 4), code_size=8, vocabulary=256, depth=8, classes=20)
    assert {key: list(parameter.shape) for key, parameter in model.named_parameters()} == {
        key: stats["shape"] for key, stats in gold["stats"].items()
    }
    for key, stats in gold["stats"].items():
        value = model.get_parameter(key)
        # Both are samples: allow four standard errors of each.
        error = 4 * 2**0.5 * stats["std"] / value.numel() ** 0.5
        assert value.mean().item() == pytest.approx(stats["mean"], abs=error + 1e-6), key
        assert value.std().item() == pytest.approx(stats["std"], abs=error + 1e-9), key
        assert value.abs().max().item() == pytest.approx(stats["absmax"], rel=0.3), key
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx(gold["drop_path_per_block"], rel=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_gates_start_nearly_closed(shared: bool) -> None:
    torch.manual_seed(0)
    model = VisualDecoder(**{**SMALL, "width": 64}, shared_adaln=shared)
    block = model.blocks[-1]
    rows_6C = block.ada_gss[0, 0] if shared else block.ada_lin[-1].weight.unflatten(0, (6, -1)).flatten(1)
    std = 64**-0.5 if shared else (64 * 3) ** -0.5
    assert rows_6C[:2].std().item() == pytest.approx(1e-5 * std, rel=0.3)
    assert rows_6C[2:].std().item() == pytest.approx(0.5 * std, rel=0.3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("var_d8", {"scales": FINE, "depth": 8}),
        ("var_d16", {"scales": FINE, "depth": 16}),
        ("var_d30", {"scales": FINE, "depth": 30}),
        ("var_d36_shared_512", {"scales": FINER, "depth": 36, "shared_adaln": True}),
    ],
)
def test_published_sizes_are_built_without_memory(name: str, settings: dict[str, Any]) -> None:
    published = json.loads((Path(FOLDER) / "keys" / f"{name}.json").read_text())
    with torch.device("meta"):
        model = VisualDecoder(code_size=32, vocabulary=4096, **settings)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == without_derived({key: shape for key, (shape, *_) in published["keys"].items()})
    assert sum(parameter.numel() for parameter in model.parameters()) == published["n_params"]
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not list(model.buffers())


def test_depth_30_has_two_billion_parameters() -> None:
    with torch.device("meta"):
        model = VisualDecoder(scales=FINE, code_size=32, vocabulary=4096, depth=30)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_010_020_356


# Block-causal attention


@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 3, 5, 6), (3,)])
def test_attention_with_the_last_scale_apart_equals_the_mask(sizes: tuple[int, ...]) -> None:
    schedule = ScaleSchedule(sizes)
    qkv = [torch.randn(2, 3, schedule.num_tokens, 8, generator=seeded(i)).requires_grad_() for i in range(3)]
    mask_LL = schedule.block_causal_mask()
    weight_BHLD = torch.randn(qkv[0].shape, generator=seeded(9))
    last = schedule.slices[-1].start

    def by_hand(allowed_LL: Tensor) -> Tensor:
        scores_BHLL = (0.7 * qkv[0] @ qkv[1].transpose(-2, -1)).masked_fill(~allowed_LL, -torch.inf)
        return scores_BHLL.softmax(dim=-1) @ qkv[2]

    def with_gradients(y_BHLD: Tensor) -> list[Tensor]:
        return [y_BHLD, *torch.autograd.grad((y_BHLD * weight_BHLD).sum(), qkv)]

    expected = with_gradients(by_hand(mask_LL))
    for split in (True, False):
        found = with_gradients(block_causal_attention(*qkv, mask_LL, last, scale=0.7, split=split))
        for ours, right in zip(found, expected, strict=True):
            assert_same_but_rounding(ours, right)
    for query, key in ((0, -1), (-1, 0)) if len(sizes) > 1 else ((-1, 0),):
        other_LL = mask_LL.clone()
        other_LL[query, key] ^= True
        wrong = with_gradients(by_hand(other_LL))
        assert all((a - b).abs().max() > 4 * slack(b) for a, b in zip(wrong, expected, strict=True)), "one pair is seen"


def test_a_token_moves_its_own_scale_and_later_ones_only() -> None:
    model = small_decoder()
    labels_B, inputs_BLC = small_inputs(1)
    x_BLC, cond = model.embed_inputs(labels_B, inputs_BLC), model.condition(labels_B)
    for span in model.schedule.slices:
        changed_BLC = x_BLC.clone()
        changed_BLC[:, span.start] += torch.randn(model.width, generator=seeded(1))
        moved_L = (model.decode(changed_BLC, cond) - model.decode(x_BLC, cond)).abs().amax(dim=(0, 2)) > 1e-5
        assert not moved_L[: span.start].any()
        assert moved_L[span.start :].all()


def test_heads_sharpen_at_most_a_hundredfold() -> None:
    model = small_decoder()
    labels_B, inputs_BLC = small_inputs()
    for block in model.blocks:
        nn.init.constant_(block.attn.scale_mul_1H11, 100.0)
    beyond_BLV = model(labels_B, inputs_BLC)
    for block in model.blocks:
        nn.init.constant_(block.attn.scale_mul_1H11, torch.log(torch.tensor(100.0)).item())
    torch.testing.assert_close(model(labels_B, inputs_BLC), beyond_BLV, rtol=0, atol=1e-3)


# The cache, and hidden states from outside


@pytest.mark.parametrize("changes", [{}, {"shared_adaln": True}, {"qk_norm": False}])
def test_scale_by_scale_equals_all_scales_at_once(changes: dict[str, Any]) -> None:
    model = small_decoder(**changes)
    labels_B = torch.tensor([1, 1000])
    # Hidden states from outside take the place of the embedded inputs.
    hidden_BLC = torch.randn(2, model.schedule.num_tokens, model.width, generator=seeded(0))
    cond, cache = model.condition(labels_B), model.new_cache(2)
    logits = [model.decode(hidden_BLC[:, span], cond, cache, k) for k, span in enumerate(model.schedule.slices)]
    torch.testing.assert_close(torch.cat(logits, dim=1), model.decode(hidden_BLC, cond), rtol=0, atol=2e-5)


def test_embedding_scale_by_scale_equals_embedding_all() -> None:
    model = small_decoder()
    labels_B, inputs_BLC = small_inputs()
    first = model.schedule.first_tokens
    parts = [model.embed_scale(0, labels_B, None)]
    for k, span in list(enumerate(model.schedule.slices))[1:]:
        parts.append(model.embed_scale(k, None, inputs_BLC[:, span.start - first : span.stop - first]))
    torch.testing.assert_close(torch.cat(parts, dim=1), model.embed_inputs(labels_B, inputs_BLC))


def test_the_cache_is_allocated_once_and_serves_again() -> None:
    model = small_decoder()
    cache = model.new_cache(2)
    held = [tensor for layer in cache.layers for tensor in (layer.keys_BHLD, layer.values_BHLD)]
    assert {tuple(tensor.shape) for tensor in held} == {(2, 4, model.schedule.num_tokens, 8)}
    places = [tensor.data_ptr() for tensor in held]
    hidden_BLC = torch.randn(2, model.schedule.num_tokens, model.width, generator=seeded(0))
    for labels in ([1, 2], [3, 4]):
        cond = model.condition(torch.tensor(labels))
        with torch.no_grad():
            for k, span in enumerate(model.schedule.slices):
                logits_BlV = model.decode(hidden_BLC[:, span], cond, cache, k)
        expected_BlV = model.decode(hidden_BLC, cond)[:, span]
        torch.testing.assert_close(logits_BlV, expected_BlV, rtol=0, atol=2e-5)
    now = [tensor for layer in cache.layers for tensor in (layer.keys_BHLD, layer.values_BHLD)]
    assert [tensor.data_ptr() for tensor in now] == places


@pytest.mark.parametrize("shared", [False, True])
def test_modulation_is_computed_once_a_generation(tokenizer: ImageTokenizer, shared: bool) -> None:
    model = VisualDecoder(
        scales=(1, 2, 3, 4), code_size=8, vocabulary=64, depth=2, width=16, classes=3, shared_adaln=shared
    ).eval()
    calls: list[str] = []
    for name, module in model.named_modules():
        if name.endswith(("ada_lin.1", "shared_ada_lin")):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    model.generate(tokenizer, torch.tensor([0]), sampling=SamplingSettings(greedy=True))
    expected = ["shared_ada_lin"] if shared else ["blocks.0.ada_lin.1", "blocks.1.ada_lin.1"]
    assert set(expected) <= set(calls)
    assert len(calls) == len(set(calls))


def test_scales_come_in_order_and_whole() -> None:
    model = small_decoder()
    cond, cache = model.condition(torch.tensor([0])), model.new_cache(1)
    x_BLC = torch.zeros(1, model.schedule.num_tokens, model.width)
    first, second = model.schedule.slices[:2]
    with pytest.raises(ValueError, match="x: got 38 tokens, expected 4"):
        model.decode(x_BLC, cond, cache, 0)
    with pytest.raises(ValueError, match="x: got 4 tokens, expected 38"):
        model.decode(x_BLC[:, first], cond)
    with pytest.raises(ValueError, match="cache: holds 0 tokens, expected 4 before scale 1"):
        model.decode(x_BLC[:, second], cond, cache, 1)
    with pytest.raises(ValueError, match="k: got None, expected 0 to 2"):
        model.decode(x_BLC[:, first], cond, cache)


# Generation


@pytest.mark.parametrize("cfg", [0.0, 1.5])
def test_a_picture_does_not_depend_on_its_neighbours(tokenizer: ImageTokenizer, cfg: float) -> None:
    model = golden_decoder(load_golden("a2_var_l2norm_aln"))
    labels_B = torch.tensor([3, 10, 0])
    greedy, drawn = SamplingSettings(cfg=cfg, greedy=True), SamplingSettings(cfg=cfg)
    together = model.generate(tokenizer, labels_B, sampling=greedy)
    sampled = model.generate(tokenizer, labels_B, sampling=drawn, generator=[seeded(s) for s in (4, 5, 6)])
    for row, seed in enumerate((4, 5, 6)):
        label_1 = labels_B[row : row + 1]
        alone = model.generate(tokenizer, label_1, sampling=greedy)
        assert torch.equal(alone.idx_BL[0], together.idx_BL[row])
        alone = model.generate(tokenizer, label_1, sampling=drawn, generator=seeded(seed))
        assert torch.equal(alone.idx_BL[0], sampled.idx_BL[row])
    assert not torch.equal(together.idx_BL, sampled.idx_BL)


@pytest.mark.parametrize(("cfg", "rows"), [(0.0, 2), (1.5, 4)])
def test_the_batch_is_doubled_for_guidance_only(
    tokenizer: ImageTokenizer, monkeypatch: pytest.MonkeyPatch, cfg: float, rows: int
) -> None:
    model = golden_decoder(load_golden("a2_var_nol2_aln"))
    seen: list[int] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda x, *rest: seen.append(len(x)) or decode(x, *rest))
    model.generate(tokenizer, torch.tensor([1, 2]), sampling=SamplingSettings(cfg=cfg, greedy=True))
    assert seen == [rows] * 4


def test_generation_wants_labels_and_a_tokenizer_that_fit(tokenizer: ImageTokenizer) -> None:
    model = VisualDecoder(scales=(1, 2, 3, 4), code_size=8, vocabulary=64, depth=1, width=8, classes=3).eval()
    for label in (-1, 4):
        with pytest.raises(ValueError, match=r"labels: got .*expected at least one, each from 0 to 3"):
            model.generate(tokenizer, torch.tensor([label]), sampling=SamplingSettings())
    with pytest.raises(ValueError, match=r"tokenizer: got .*64.*expected .*32"):
        small_decoder().generate(tokenizer, torch.tensor([0]), sampling=SamplingSettings())


def test_random_labels_of_rows_with_their_own_generators() -> None:
    model = small_decoder()
    labels_B = model.random_labels(3, [seeded(s) for s in range(3)])
    assert [model.random_labels(1, seeded(s)).item() for s in range(3)] == labels_B.tolist()
    even_B = VisualDecoder(**SMALL, classes=4).random_labels(4000, seeded(0))
    assert even_B.bincount(minlength=4).tolist() == pytest.approx([1000] * 4, abs=150)


# Training


def test_conditions_are_dropped_in_training_or_when_asked_to() -> None:
    model = small_decoder(class_dropout=0.5)
    labels_B, inputs_BLC = torch.zeros(2000, dtype=torch.long), small_inputs()[1]
    dropped_B = model.drop_labels(labels_B, seeded(0)) == model.classes
    assert torch.equal(dropped_B, torch.rand(2000, generator=seeded(0)) < 0.5)
    assert dropped_B.float().mean().item() == pytest.approx(0.5, abs=0.06)
    kept_BLV = model(labels_B[:2], inputs_BLC)
    assert torch.equal(model(labels_B[:2], inputs_BLC), kept_BLV)
    model.class_dropout = 1.0
    null_BLV = model(torch.full((2,), model.classes), inputs_BLC)
    for block in model.blocks:
        block.drop_path.rate = 0.0
    torch.testing.assert_close(model.train()(labels_B[:2], inputs_BLC), null_BLV)
    assert (null_BLV - kept_BLV).abs().max() > 1e-3


def test_residual_branches_are_dropped_by_whole_samples_in_training() -> None:
    torch.manual_seed(0)
    layer, x_BLC = DropPath(0.25), torch.ones(4000, 2, 3)
    y_BLC = layer(x_BLC)
    values_BN = y_BLC.flatten(1)
    assert (values_BN == values_BN[:, :1]).all()
    assert y_BLC.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y_BLC.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(x_BLC), x_BLC)


def test_activation_checkpointing_keeps_the_gradients() -> None:
    labels_B, inputs_BLC = small_inputs()
    grads = []
    for checkpointed in (False, True):
        model = small_decoder(class_dropout=0.0, drop_path=0.5).train()
        if checkpointed:
            apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Block))
        torch.manual_seed(1)
        model(labels_B, inputs_BLC).square().mean().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_near(tokenizer: ImageTokenizer, autocast: bool) -> None:
    gold = load_golden("a2_var_l2norm_aln")
    model = golden_decoder(gold)
    if not autocast:
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits_BLV = model(gold.tensors["label_B"], gold.tensors["x_BLCv_wo_first_l"])
        drawing = model.generate(tokenizer, gold.tensors["label_B"], sampling=SamplingSettings(greedy=True))
    assert (logits_BLV.float() - gold.tensors["logits"]).abs().mean() < 0.05
    assert (drawing.idx_BL == gold.tensors["greedy.idx"]).float().mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"depth": 0}, "depth"),
        ({"width": 30}, "width"),
        ({"heads": 0}, "heads"),
        ({"vocabulary": 0}, "vocabulary"),
        ({"classes": -1}, "classes"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"class_dropout": 1.5}, "class_dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"scales": (2, 2)}, "scales"),
    ],
)
def test_a_setting_out_of_range_is_named(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}: got .*expected"):
        VisualDecoder(**{**SMALL, **changes})
