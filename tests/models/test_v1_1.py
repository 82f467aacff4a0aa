"""VARGPT-v1.1 against the values of the released code (`published: official`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import Golden, load_golden
from tests.models.v1_1 import BUFFERS, golden_batch, golden_model, golden_patches, our_name, strip
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.bitwise.sampling import BitRules, BitSampling
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.losses import VARGPTOutput
from vargpt_lightning.models.decoder.sampling import Drawing, next_scale_loop
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.drawing import PictureStep
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.models.generation.reading import Pictures, read_contexts

ASSEMBLY = "vargpt_lightning.models.vargpt"


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("b4_v11")


@pytest.fixture(scope="module")
def model(gold: Golden) -> VARGPT:
    return golden_model(gold)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def forward(
    model: VARGPT, gold: Golden, case: str, monkeypatch: pytest.MonkeyPatch, training: bool = True, **more: Any
) -> VARGPTOutput:
    """The golden case's pass, with the draws that dropped its conditions and the bits that it flipped."""
    draws = torch.tensor(gold.meta[case]["random_random_draws"])
    monkeypatch.setattr(f"{ASSEMBLY}.draw", lambda count, device, generator: draws)
    if (mask_BLD := gold.tensors.get(f"{case}.flip_mask")) is not None:
        slices = model.schedule.slices
        flips = [mask_BLD[:, part].bool() for part in slices]
        change = lambda k, bits: torch.where(flips[k], 1 - bits, bits)  # noqa: E731
        monkeypatch.setattr(f"{ASSEMBLY}.random_change", lambda *_: change)
        more["correction"] = SelfCorrection()
    name = "train" if case.startswith(("train", "eval")) else case
    model.train(training)
    try:
        with golden_patches(model):
            return model(golden_batch(gold, name), return_text_logits=True, **more)
    finally:
        model.eval()


def gradients_agree(model: VARGPT, expected: dict[str, float | None], padding: int) -> None:
    # the released code's embedding gives its padding row no gradient; ours treats it as any other row
    words = model.get_parameter("language_model.model.embed_tokens.weight")
    assert words.grad is not None
    words.grad[padding] = 0
    checked = 0
    for key, norm in expected.items():
        if key.endswith(BUFFERS):
            continue
        found = model.get_parameter(our_name(key)).grad
        ours = 0.0 if found is None else float(found.norm())
        # a query that looks at one key alone has no gradient but rounding
        assert ours == pytest.approx(norm or 0.0, rel=1e-3, abs=1e-6), key
        checked += norm is not None
    assert checked > 25


@pytest.mark.parametrize("case", ["train", "train_drop0", "train_flips", "edit"])
def test_training_agrees_with_the_released_code(
    model: VARGPT, gold: Golden, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.zero_grad()
    output, expected = forward(model, gold, case, monkeypatch), gold.meta[case]
    assert output.image_indices is not None and output.text_loss is not None and output.image_loss is not None
    assert torch.equal(output.image_indices.byte(), gold.tensors[f"{case}.bits"])
    close(output.image_logits, gold.tensors[f"{case}.bit_logits"])
    ids = golden_batch(gold, "edit" if case == "edit" else "train")["input_ids"]
    words_T = ids[0] != model.tokens.image_gen
    close(output.text_logits[:, words_T], gold.tensors[f"{case}.text_logits_where_row0_is_no_pad"])
    assert output.text_loss.item() == pytest.approx(expected["text_loss"], rel=1e-4)
    assert output.image_loss.item() == pytest.approx(expected["image_loss"], rel=1e-4)
    assert int(output.text_tokens) == expected["n_text_targets"]
    loss = output.text_loss + 3 * output.image_loss
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    loss.backward()
    gradients_agree(model, expected["grad_norm"], model.tokens.pad)
    model.zero_grad()


def test_the_decoder_s_inputs_agree_with_the_released_code(
    model: VARGPT, gold: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in ("train", "train_flips"):
        seen = {}
        monkeypatch.setattr(
            model.visual_decoder, "embed_inputs", lambda told, inputs, seen=seen, **_: seen.update(x=inputs) or 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            forward(model, gold, case, monkeypatch)
        close(seen["x"], gold.tensors[f"{case}.inputs"])


def test_understanding_agrees_with_the_released_code(
    model: VARGPT, gold: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    with golden_patches(model), torch.no_grad():
        close(model.vision_projector(model.see(strip()))[0], gold.tensors["visual.features"])
    model.zero_grad()
    gold.meta["understand"].setdefault("random_random_draws", [])
    output = forward(model, gold, "understand", monkeypatch)
    assert output.text_loss is not None
    close(output.text_logits[:, 5:], gold.tensors["understand.text_logits"])
    assert output.text_loss.item() == pytest.approx(gold.meta["understand"]["loss"], rel=1e-4)
    output.text_loss.backward()
    gradients_agree(model, gold.meta["understand"]["grad_norm"], model.tokens.pad)
    model.zero_grad()


def test_evaluation_agrees_with_the_released_code(model: VARGPT, gold: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        output = forward(model, gold, "eval_with_pictures", monkeypatch, training=False)
        assert output.image_loss is None and output.text_loss is not None
        close(output.text_logits[:, -8:], gold.tensors["eval_with_pictures.text_logits"])
        assert output.text_loss.item() == pytest.approx(gold.meta["eval_with_pictures"]["loss"], rel=1e-4)
        output = forward(model, gold, "eval_dpo", monkeypatch, training=False, as_in_training=True)
    close(output.image_logits, gold.tensors["eval_dpo.bit_logits"])
    assert output.text_loss is not None and output.image_loss is not None
    loss = output.text_loss.item() + 3 * output.image_loss.item()
    assert loss == pytest.approx(gold.meta["eval_dpo"]["loss"], rel=1e-4)


def test_positions_agree_with_the_released_code(model: VARGPT, gold: Golden) -> None:
    batch = golden_batch(gold, "understand")
    assert torch.equal(model.grid_positions(batch).int(), gold.tensors["visual.rope_index_understand"])
    assert model.training_positions(batch) is None  # plain in training


@pytest.mark.parametrize("case", ["greedy_text", "greedy_text_with_picture"])
def test_text_agrees_with_the_released_code(
    model: VARGPT, gold: Golden, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    banned = torch.tensor(gold.meta["greedy_text"]["banned"])
    monkeypatch.setattr("vargpt_lightning.models.generation.generate.never_written", lambda *_: banned)
    (prompt,), (ids,) = gold.meta[case]["prompt"], gold.meta[case]["ids"]
    pixels = strip() if case.endswith("picture") else None
    settings = GenerationSettings(max_new_tokens=len(ids) - len(prompt), max_images=0, temperature=0.0)
    with golden_patches(model):
        (answer,) = generate(model, [Prompt(prompt, pixel_values=pixels)], lambda ids: "", settings)
    assert answer.token_ids == ids[len(prompt) :]


def step_of(model: VARGPT, gold: Golden, case: str, **changes: Any) -> PictureStep:
    """What draws the golden case's picture, whose answer was greedy and then forced to begin one."""
    context = gold.meta[case]["ids"][0]
    context = context[: context.index(model.tokens.image_gen_start)]
    cache = model.language_cache(1, len(context) + model.schedule.num_tokens + 1)
    read_contexts(model, cache, [0], [context], Pictures(None, []))
    return PictureStep(model, cache, [0], [len(context)], model.sampling_settings(**changes))


def assert_drawn(drawing: Drawing, gold: Golden, case: str, temperature: float) -> None:
    assert torch.equal(drawing.idx_BL.byte(), gold.tensors[f"{case}.bits"])
    assert drawing.logits_BLV is not None
    close(drawing.logits_BLV / temperature, gold.tensors[f"{case}.logits"])


@torch.no_grad()
def test_drawing_agrees_with_the_released_code(model: VARGPT, gold: Golden) -> None:
    case = gold.meta["draw_uniform"]
    step = step_of(model, gold, "draw_uniform")
    close(step.condition.text.rows_RW, gold.tensors["draw_uniform.cross_kv"])
    settings = BitSampling(float(case["cfg"]), case["tau"], case["top_k"], case["top_p"])
    rules = BitRules(settings, uniforms_BLD=gold.tensors["draw_uniform.u"])
    drawing = next_scale_loop(step, model.image_tokenizer, rules, keep_logits=True)
    assert_drawn(drawing, gold, "draw_uniform", 1.0)
    picture_3HW = model.image_tokenizer.decode(drawing.f_hat_BCHW)[0].clamp(-1, 1)
    bytes_HW3 = ((picture_3HW + 1) * 127.5).byte().permute(1, 2, 0).flip(-1)
    assert (bytes_HW3.int() - gold.tensors["draw_uniform.img_bgr_uint8"].int()).abs().max() <= 1


@torch.no_grad()
def test_drawing_from_a_seed_agrees_with_the_released_code(model: VARGPT, gold: Golden) -> None:
    sampling = model.sampling_settings()
    assert (sampling.cfg, sampling.cfg_schedule, sampling.temperature, sampling.top_p) == (2.0, "constant", 0.5, 0.97)
    step, draws = step_of(model, gold, "draw_seeded"), torch.Generator().manual_seed(1234567)
    drawing = next_scale_loop(step, model.image_tokenizer, sampling, draws, keep_logits=True)
    assert_drawn(drawing, gold, "draw_seeded", sampling.temperature)
