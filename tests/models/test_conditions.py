"""What the decoder is told, and each setting on which VARGPT-v1.1's description and its released code differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import DRAWN, IDS, SEEN, bit_tokenizer, make_batch, random_features, small_model
from tests.models.v1_1 import small_v1_1
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.bitwise.losses import bit_loss
from vargpt_lightning.models.core.config import DecoderConfig, VisionConfig
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.settings import V1_1
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.drawing import PictureStep, draw_pictures
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.models.generation.reading import Pictures, read_contexts
from vargpt_lightning.utils.errors import UserError

PROMPT = [IDS.bos, 7, 8, 9]
OTHER = [IDS.bos, 17, 18, 19]
READS = {
    "hidden": {"cross_attention": "hidden"},
    "embeddings": {"cross_attention": "embeddings"},
    "v1_1": {"preset": "v1_1"},
}


def bits(count: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(2, (count, 30, 6), generator=torch.Generator().manual_seed(seed))


def drawn_batch(*prompts: list[int]) -> dict[str, Tensor]:
    return {**make_batch([[*prompt, *DRAWN] for prompt in prompts]), "drawn_indices": bits(len(prompts))}


def reading(**changes: Any) -> VARGPT:
    """A small model in bits of our own, preset `paper`, whose decoder reads the prompt."""
    return small_model(3, tokenizer=bit_tokenizer(), **changes)


def model_of(name: str) -> VARGPT:
    return small_v1_1() if name == "v1_1" else reading(**READS[name])


def begun(model: VARGPT, prompt: list[int] = PROMPT, **sampling: Any) -> PictureStep:
    cache = model.language_cache(1, len(prompt) + 40)
    read_contexts(model, cache, [0], [prompt], Pictures(None, []))
    return PictureStep(model, cache, [0], [len(prompt)], SamplingSettings(**sampling))


@torch.no_grad()
def stepped(step: PictureStep, codes_1LD: Tensor) -> tuple[Tensor, Tensor]:
    """Both halves' logits of all scales, each scale's codes given."""
    inputs_1LD, halves = step.model.next_scale_inputs(codes_1LD), []
    for k, part in enumerate(step.model.schedule.slices):
        halves.append(step(k, None if k == 0 else inputs_1LD[:, part.start - 1 : part.stop - 1]))
    cond, other = zip(*halves, strict=True)
    return torch.cat(cond, 1), torch.cat(other, 1)


# What it reads


@pytest.mark.parametrize("name", READS)
@torch.no_grad()
def test_drawing_gives_the_logits_of_training(name: str) -> None:
    model = model_of(name)
    step = begun(model, cfg=0.0, greedy=True)
    drawing = draw_pictures(
        model, step.cache, [0], [len(PROMPT)], SamplingSettings(cfg=0.0, greedy=True), keep_logits=True
    )
    batch = {**make_batch([[*PROMPT, *DRAWN]]), "drawn_indices": drawing.idx_BL}
    torch.testing.assert_close(drawing.logits_BLV, model(batch).image_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", READS)
def test_rows_of_a_batch_are_what_they_are_alone(name: str) -> None:
    model = model_of(name)
    longer = [IDS.bos, 30, 31, 32, 33, 34]
    together = model(drawn_batch(PROMPT, longer)).image_logits
    alone = model({**drawn_batch(longer), "drawn_indices": bits(2)[1:]}).image_logits
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", READS)
def test_records_of_a_packed_row_read_their_own_prompts(name: str) -> None:
    model = model_of(name)
    both = drawn_batch(PROMPT, OTHER)
    row = torch.cat([both["input_ids"][0], both["input_ids"][1]])[None]
    packed = {"input_ids": row, "attention_mask": torch.ones_like(row).bool(), "drawn_indices": both["drawn_indices"]}
    packed["segment_ids"] = torch.tensor([1, 2]).repeat_interleave(row.shape[1] // 2)[None]
    torch.testing.assert_close(model(packed).image_logits, model(both).image_logits, rtol=0, atol=1e-4)


def test_what_is_read_is_the_prompt_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states through the projector out; embeddings as they are; the learned row otherwise."""
    read = {}
    for name, changes in {**READS, "learned": {}}.items():
        model = model_of(name) if name != "learned" else reading(**changes)
        decode = model.visual_decoder.decode
        kept: dict[str, Any] = {}

        def noted(x: Tensor, cond: Any, *more: Any, decode: Any = decode, kept: dict[str, Any] = kept) -> Tensor:
            kept["cond"] = cond
            return decode(x, cond, *more)

        monkeypatch.setattr(model.visual_decoder, "decode", noted)
        batch = drawn_batch(PROMPT)
        with torch.no_grad():
            model(batch)
            embeds = model.language_model.embed(torch.tensor([PROMPT]))
            hidden = model.language_model.model(embeds)
            outs = {"hidden": hidden[0], "v1_1": hidden[0]}
            if name in outs:
                expected = model.generation_projector_out(outs[name])
            elif name == "embeddings":
                expected = model.visual_decoder.text_proj_for_ca(model.visual_decoder.text_norm(embeds[0]))
            else:
                expected = model.visual_decoder.condition(torch.zeros(1)).text.rows_RW
        torch.testing.assert_close(kept["cond"].text.rows_RW, expected, rtol=0, atol=1e-5)
        read[name] = kept["cond"].text.lengths
    assert read == {"hidden": (4,), "embeddings": (4,), "v1_1": (4,), "learned": (1,)}


def test_only_the_last_row_of_the_start_embedding_is_used() -> None:
    model = small_v1_1(prompt_dropout=0.0).train()
    model(drawn_batch(PROMPT)).image_loss.backward()
    used = model.start_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert used == [2]
    assert small_v1_1(class_row="null").start_embedding is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"^tokenizer\.kind: got 'indices', expected bits with cross_attention hidden"):
        small_model(preset="v1_1")
    narrow = DecoderConfig(depth=2, width=32, heads=4, text_width=16)
    with pytest.raises(UserError, match=r"^decoder\.text_width: got 16, expected 32 with cross_attention hidden"):
        small_v1_1(decoder=narrow)
    with pytest.raises(UserError, match=r"^decoder\.text_width: got 16, expected 32 with cross_attention embeddings"):
        reading(cross_attention="embeddings", decoder=narrow)
    with pytest.raises(UserError, match=r"^class_row: got 'start_embedding', expected null"):
        reading(cross_attention="embeddings", class_row="start_embedding")
    with pytest.raises(UserError, match=r"^published: got 'official', expected none with preset paper"):
        small_model(published="official")
    with pytest.raises(UserError, match=r"^language\.options\.mrope_section: got \[1, 2, 2\], expected .* sum 4"):
        language = small_v1_1().config.language
        small_v1_1(language=replace(language, options={"mrope_section": [1, 2, 2]}))


# Paper and released code


def test_presets_are_the_table_of_differences() -> None:
    paper, official = V1_1["paper"], V1_1["official"]
    table = {
        "scale_weighted": (True, False),
        "correction_in_evaluation": (False, True),
        "drop_in_evaluation": (False, True),
        "drawn_in_evaluation": (True, False),
        "unconditional": ("dropped_prompt", "present_scale"),
        "condition_dropout": ("together", "apart"),
        "prompt_dropout": (0.1, 0.0),
        "long_prompts": ("repeat", "refuse"),
        "text_loss": ("answer", "every_id"),
        "picture_multiple": (1, 128),
        "seen_positions": ("grid", "plain"),
        "after_image": ("continue", "stop"),
    }
    for name, values in table.items():
        assert (getattr(paper, name), getattr(official, name)) == values, name
    same = set(vars(paper)) - set(table)
    assert all(getattr(paper, name) == getattr(official, name) for name in same)


@pytest.mark.parametrize(("published", "weighted"), [("paper", True), ("official", False)])
def test_scales_are_weighted_or_not(published: Any, weighted: bool) -> None:
    model = small_v1_1(published=published, picture_multiple=1).train()
    output = model(drawn_batch(PROMPT))
    expected = bit_loss(output.image_logits, bits(), model.schedule, weighted=weighted).loss
    assert output.image_loss.item() == pytest.approx(expected.item())
    own = replace(model.config.decoder, scale_weighted=not weighted)
    assert small_v1_1(published=published, decoder=own).visual_decoder.scale_weighted is not weighted


@pytest.mark.parametrize(("published", "changed"), [("paper", False), ("official", True)])
def test_bits_are_flipped_in_evaluation_or_not(published: Any, changed: bool) -> None:
    model = small_v1_1(published=published)
    pixels = {"drawn_pixels": torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1}
    draws = torch.Generator().manual_seed(0)
    (_, plain), (_, flipped) = (model.codes_and_inputs(pixels, draws, each) for each in (None, SelfCorrection()))
    assert torch.equal(plain, flipped) is not changed


@pytest.mark.parametrize(("published", "dropped"), [("paper", None), ("official", [True, True])])
def test_conditions_are_dropped_in_evaluation_or_not(published: Any, dropped: Any) -> None:
    model = small_v1_1(published=published)
    model.config.decoder.class_dropout = 1.0
    drawn = model.drawn_pictures({"drawn_indices": bits(2)})
    assert drawn is not None
    assert (None if drawn.dropped_Q is None else drawn.dropped_Q.tolist()) == dropped
    assert model.drawn_pictures({"drawn_indices": bits(2)}, dropping=False).dropped_Q is None


def test_pictures_are_drawn_in_evaluation_or_read_as_words() -> None:
    batch = drawn_batch(PROMPT)
    paper, official = small_v1_1(), small_v1_1(published="official", picture_multiple=1)
    assert paper(batch).image_loss is not None
    output = official(batch, return_text_logits=True)
    assert output.image_loss is None and output.text_loss is not None
    with torch.no_grad():
        words = official.language_model(batch["input_ids"])
    torch.testing.assert_close(output.text_logits, words, rtol=0, atol=1e-5)
    assert official(batch, as_in_training=True).image_loss is not None


@torch.no_grad()
def test_the_second_half_sees_what_training_has_dropped() -> None:
    """As described: one draw drops context, condition and what is read, and drawing's second half is that."""
    model = small_v1_1(prompt_dropout=1.0)
    _, other = stepped(begun(model, cfg=1.0), bits())
    dropped = model.train()(drawn_batch(PROMPT)).image_logits
    torch.testing.assert_close(other, dropped, rtol=0, atol=1e-4)
    # rows that stand for no prompt are as many as the prompt's; nothing else of it is left
    torch.testing.assert_close(dropped, model(drawn_batch(OTHER)).image_logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_released_the_second_half_sees_the_present_scale_alone() -> None:
    model = small_v1_1(published="official")
    step, seen = begun(model, cfg=1.0), []
    run = model.language_model.model.forward

    def noted(embeds: Tensor, mask: Any = None, positions: Any = None, cache: Any = None) -> Tensor:
        out = run(embeds, mask, positions, cache)
        if step.alone is not None and cache is not None and cache.cache is step.alone:
            torch.testing.assert_close(out, run(embeds), rtol=0, atol=1e-5)
            seen.append(embeds.shape[1])
        return out

    model.language_model.model.forward = noted  # type: ignore[method-assign]
    stepped(step, bits())
    assert seen == [1, 4, 9, 16]


@torch.no_grad()
def test_released_training_drops_the_start_row_alone() -> None:
    model = small_v1_1(published="official").train()
    model.config.decoder.class_dropout = 1.0
    padded = [{**drawn_batch(prompt), **_lengthened(prompt, 128)} for prompt in (PROMPT, OTHER)]
    drawn = model.drawn_pictures(padded[0])
    assert drawn is not None and drawn.dropped_Q.tolist() == [True]
    first, second = (model(batch).image_logits for batch in padded)
    assert not torch.allclose(first, second, atol=1e-3)  # the prompt is still read
    kept = drawn._replace(dropped_Q=None)
    told = [model.conditions.told(each.classes_Q, None, each.dropped_Q).pooled_BC for each in (drawn, kept)]
    null = model.visual_decoder.condition(torch.zeros(1)).pooled_BC
    torch.testing.assert_close(told[0], null)
    assert not torch.allclose(told[1], null, atol=1e-3)


def _lengthened(prompt: list[int], places: int) -> dict[str, Tensor]:
    row = [*prompt, IDS.image_gen_start, *[IDS.image_gen] * places, IDS.image_gen_end]
    return make_batch([row])


def test_places_are_filled_up_and_trained_by_nothing() -> None:
    model = small_v1_1(picture_multiple=32, prompt_dropout=0.0).train()
    batch = {**_lengthened(PROMPT, 32), "drawn_indices": bits()}
    output = model(batch, return_text_logits=True)
    assert model.config.picture_length == 32 and output.image_logits.shape[1] == 30
    plain = small_v1_1(prompt_dropout=0.0).train()(drawn_batch(PROMPT))
    torch.testing.assert_close(output.image_logits, plain.image_logits, rtol=0, atol=1e-5)
    layout = model.layout(batch["input_ids"])
    with torch.no_grad():
        embeds = model.embed(batch, layout, model.drawn_pictures(batch))
        filling = model.generation_projector_in(torch.zeros(32))
    torch.testing.assert_close(embeds[0, len(PROMPT) + 31], filling)
    with pytest.raises(UserError, match=r"expected multiples of 32 \(one picture\)"):
        model(drawn_batch(PROMPT))


def test_text_targets_are_answers_or_every_id() -> None:
    row = [IDS.bos, *SEEN, 5, *DRAWN, 11, IDS.eos]
    batch = make_batch([row], prompt_length=8)
    counts = {}
    for loss in ("answer", "all", "every_id"):
        labels = small_v1_1(text_loss=loss).train().text_labels(batch)
        assert labels is not None
        counts[loss] = int((labels[:, 1:] != -100).sum())
    assert counts == {"answer": 3, "all": 5, "every_id": 9}


def test_positions_in_training_are_of_the_grid_or_plain() -> None:
    row = [IDS.bos, *SEEN, 5, 6, IDS.eos]
    batch = {**make_batch([row]), "vision_features": random_features(1), "seen_shapes": torch.tensor([[2, 2]])}
    grid, plain = small_v1_1(), small_v1_1(seen_positions="plain")
    expected = [[0, 1, 1, 1, 1, 3, 4, 5], [0, 1, 1, 2, 2, 3, 4, 5], [0, 1, 2, 1, 2, 3, 4, 5]]
    assert grid.training_positions(batch)[:, 0].tolist() == expected
    assert plain.training_positions(batch) is None
    assert not torch.allclose(grid(batch).text_loss, plain(batch).text_loss, atol=1e-4)
    del batch["seen_shapes"]
    assert grid.training_positions(batch)[:, 0].tolist() == expected  # a square one's are known
    native = VisionConfig(kind="qwen2_vl", width=16, layers=1, heads=2, mlp=32, max_tokens=4)
    with pytest.raises(UserError, match=r"^vision_features: got features without their pictures' shapes"):
        small_v1_1(vision=native)({**batch, "vision_features": random_features(1, channels=64)})


def model_rows(step: PictureStep) -> Tensor:
    """The rows that stand for no prompt."""
    return step.model.visual_decoder.get_parameter("cfg_uncond").detach()


def test_long_prompts_have_rows_that_repeat_or_are_refused() -> None:
    long = [IDS.bos, *range(30, 40)]
    step = begun(small_v1_1(), long, cfg=1.0)
    none_RC = step.condition.text.prompts()[1]
    rows = model_rows(step)
    assert torch.equal(none_RC[:6], rows) and torch.equal(none_RC[6:], rows[-1:].expand(5, -1))
    with pytest.raises(UserError, match=r"^prompt: got 11 rows, expected at most 6 where it may be dropped"):
        begun(small_v1_1(published="official"), long, cfg=1.0)
    model = small_v1_1(prompt_dropout=1.0).train()
    assert torch.isfinite(model(drawn_batch(long)).image_loss)


@pytest.mark.parametrize("published", ["paper", "official"])
def test_answers_go_on_behind_a_picture_or_stop(published: Any) -> None:
    model = small_v1_1(published=published)
    settings = GenerationSettings(max_new_tokens=3, max_images=1, temperature=0.0)
    (answer,) = generate(model, [Prompt([*PROMPT, IDS.image_gen_start])], lambda ids: "", settings)
    assert len(answer.pictures) == 1
    assert (answer.finished == "picture") is (published == "official")
    assert answer.token_ids.count(IDS.image_gen) == model.config.picture_length
