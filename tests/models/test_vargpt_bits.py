"""A VARGPT that draws in bits: its decoder behind the language model, in training and when drawing."""

from __future__ import annotations

import pytest
import torch

from tests.models.cases import DRAWN, IDS, bit_tokenizer, make_batch, small_model
from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.models.bitwise.losses import bit_loss
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.drawing import PictureStep, draw_pictures
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts import check_parts
from vargpt_lightning.utils.errors import UserError

PROMPT = [IDS.bos, 7, 8, 9]


def random_bits(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, (count, 30, 6), generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_that_of_bits_and_reaches_all_that_draws() -> None:
    model = small_model(3, tokenizer=bit_tokenizer()).train()
    assert isinstance(model.visual_decoder, BitwiseDecoder)
    bits_QLD = random_bits(2)
    output = model({**make_batch([[*PROMPT, *DRAWN], [*PROMPT, 5, *DRAWN]]), "drawn_indices": bits_QLD})
    assert output.image_logits.shape == (2, 30, 12)
    expected = bit_loss(output.image_logits, bits_QLD, model.schedule, weighted=True)
    assert output.image_loss.item() == pytest.approx(expected.loss.item())
    assert int(output.image_tokens) == 60 and 0 < float(output.image_correct) < 60
    assert len(output.image_loss_per_scale) == 4
    output.image_loss.backward()
    for part in (model.visual_decoder, model.generation_projector_in, model.generation_projector_out):
        assert all(each.grad is not None for each in part.parameters() if each.dim() > 1)
    assert model.language_model.lm_head.weight.grad is None


def test_drawing_gives_the_logits_of_training() -> None:
    model = small_model(3, tokenizer=bit_tokenizer())
    cache = LanguageCache(model.language_model, 1, len(PROMPT) + 40)
    slots_1T = torch.arange(len(PROMPT))[None]
    with torch.no_grad():
        embeds_1TC = model.language_model.embed(torch.tensor([PROMPT]))
        cache.run(embeds_1TC, slots_1T, step_mask(slots_1T, len(PROMPT)), rows=[0])
    settings = SamplingSettings(cfg=0.0, greedy=True)
    drawing = draw_pictures(model, cache, [0], [len(PROMPT)], settings, keep_logits=True)
    assert drawing.idx_BL.shape == (1, 30, 6)
    with torch.no_grad():
        batch = {**make_batch([[*PROMPT, *DRAWN]]), "drawn_indices": drawing.idx_BL}
        forced_1LV = model(batch).image_logits
    torch.testing.assert_close(drawing.logits_BLV, forced_1LV, rtol=0, atol=1e-4)
    assert torch.equal(forced_1LV.view(1, 30, 6, 2).argmax(-1), drawing.idx_BL)


def test_rows_and_halves_are_dropped_on_the_way() -> None:
    """As parts of samplers do: what goes on has the logits that it has with the others."""
    model, settings = small_model(3, tokenizer=bit_tokenizer()), SamplingSettings(cfg=1.5)

    def begun() -> PictureStep:
        cache = LanguageCache(model.language_model, 3, 40)
        slots_1T = torch.arange(3)[None]
        for row in range(3):
            embeds_1TC = model.language_model.embed(torch.tensor([[IDS.bos, 7 + row, 9]]))
            cache.run(embeds_1TC, slots_1T, step_mask(slots_1T, 3), rows=[row])
        return PictureStep(model, cache, range(3), [3, 3, 3], settings)

    input_RlD = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole, fewer, halved = begun(), begun(), begun()
        for step in (whole, fewer, halved):
            step(0, None)
        cond_RlV, other_RlV = whole(1, input_RlD)
        fewer.regroup([2, 0])
        found = fewer(1, input_RlD[[2, 0]])
        torch.testing.assert_close(found[0], cond_RlV[[2, 0]])
        torch.testing.assert_close(found[1], other_RlV[[2, 0]])
        halved.drop_second()
        torch.testing.assert_close(halved(1, input_RlD)[0], cond_RlV)


def test_parts_for_indices_are_refused() -> None:
    model = small_model(3, tokenizer=bit_tokenizer())
    check_parts({"spatial": {}}, model.facts(SamplingSettings()))
    with pytest.raises(UserError, match=r"^parts\.certainty: the model draws bits"):
        check_parts({"certainty": {}}, model.facts(SamplingSettings()))
    check_parts({"skip_scales": {"last": 0}}, model.facts(SamplingSettings()))
    with pytest.raises(UserError, match=r"^parts\.skip_scales\.last: the model draws bits, and no bits stand for"):
        model.sampling_settings(parts={"skip_scales": {}})


def test_the_decoder_draws_by_itself_as_it_is_trained() -> None:
    model = small_model(3, tokenizer=bit_tokenizer())
    labels_B = torch.zeros(2, dtype=torch.long)
    settings = SamplingSettings(cfg=0.0, greedy=True)
    drawing = model.visual_decoder.generate(model.image_tokenizer, labels_B, sampling=settings, keep_logits=True)
    with torch.no_grad():
        output = model({"drawn_indices": drawing.idx_BL}, decoder_only=True)
    torch.testing.assert_close(output.image_logits, drawing.logits_BLV, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match=r"^smooth, sampler: expected neither"):
        model.visual_decoder.generate(model.image_tokenizer, labels_B, sampling=SamplingSettings(smooth=True))


def test_pictures_are_encoded_and_changed_on_the_way_in_training() -> None:
    model = small_model(3, tokenizer=bit_tokenizer())
    pixels_Q3HW = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    plain, inputs = model.codes_and_inputs({"drawn_pixels": pixels_Q3HW})
    assert plain.shape == (2, 30, 6) and inputs.shape == (2, 29, 6)
    draws = torch.Generator().manual_seed(0)
    codes, changed = model.train().codes_and_inputs({"drawn_pixels": pixels_Q3HW}, draws, SelfCorrection())
    assert torch.equal(codes[:, :1], plain[:, :1]) and not torch.equal(changed, inputs)


def test_a_decoder_of_too_few_scales_is_refused_when_it_is_configured() -> None:
    from vargpt_lightning.models.core.config import DecoderConfig

    with pytest.raises(UserError, match=r"^decoder\.levels: got 3, expected 4 or more"):
        small_model(tokenizer=bit_tokenizer(), decoder=DecoderConfig(depth=2, width=32, heads=4, classes=103, levels=3))
    with pytest.raises(UserError, match=r"^decoder\.width: got 40, expected a multiple of 4 x the 4 heads"):
        small_model(tokenizer=bit_tokenizer(), decoder=DecoderConfig(depth=2, width=40, heads=4, classes=103))


def test_a_stage_may_draw_the_first_scales_alone() -> None:
    model = small_model(3, tokenizer=bit_tokenizer())
    whole = model.config
    model.use_scales(3)
    assert model.schedule.sizes == (1, 2, 3) and model.config.tokenizer.picture_shape == (12, 12)
    batch = make_batch([[*PROMPT, IDS.image_gen_start, *[IDS.image_gen] * 14, IDS.image_gen_end]])
    pixels = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(4)) * 2 - 1
    output = model({**batch, "drawn_pixels": pixels})
    assert output.image_logits.shape == (1, 14, 12) and len(output.image_loss_per_scale) == 3
    model.use_scales(None)
    assert model.config == whole and model.schedule.num_tokens == 30
    with pytest.raises(UserError, match=r"^scales: got 5, expected 1 to 4, those of model\.tokenizer\.scales"):
        model.use_scales(5)
    with pytest.raises(UserError, match=r"^tokenizer\.kind: got 'indices', expected bits where a stage draws"):
        small_model().use_scales(2)
