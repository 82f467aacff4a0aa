"""One model that draws pictures of several sizes: training, drawing, and contexts with all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.cases import DRAWN, IDS, bit_tokenizer, make_batch, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import attention_mask, find_pictures
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.generate import GenerationSettings, Prompt, first_token_logits, generate
from vargpt_lightning.utils.errors import UserError

WIDE, TALL = (1, 2, (3, 4), (4, 6)), (1, 2, (4, 3), (6, 4))
SIZES = (WIDE, TALL)
TOKENS = (30, 41, 41)
SHAPES = ((16, 16), (16, 24), (24, 16))
ASKS = [IDS.bos, 10, 11, 12, IDS.image_gen_start]


def sized_model(kind: str) -> VARGPT:
    """The small model with two sizes beside the square."""
    tokenizer = (
        bit_tokenizer() if kind == "bits" else replace(bit_tokenizer(), kind="indices", vocabulary=48, code_size=8)
    )
    return small_model(tokenizer=replace(tokenizer, sizes=SIZES))


@pytest.fixture(scope="module", params=["indices", "bits"])
def model(request: pytest.FixtureRequest) -> VARGPT:
    return sized_model(request.param)


def drawn(size: int) -> list[int]:
    return [IDS.image_gen_start, *[IDS.image_gen] * TOKENS[size], IDS.image_gen_end]


def pixels(size: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.rand(count, 3, *SHAPES[size], generator=generator) * 2 - 1


def test_a_configuration_says_its_sizes(model: VARGPT) -> None:
    assert model.config.tokenizer.picture_shapes == SHAPES and model.config.tokenizer.largest == 1
    assert [schedule.num_tokens for schedule in model.schedules] == list(TOKENS)
    assert model.at(0) is model and model.at(1).schedule == ScaleSchedule(WIDE) == model.schedules[1]


def test_other_sizes_have_no_weights_of_their_own(model: VARGPT) -> None:
    plain = small_model(tokenizer=replace(model.config.tokenizer, sizes=()))
    plain.load_state_dict(model.state_dict())
    batch = make_batch([[IDS.bos, 10, 11, *DRAWN, IDS.eos]]) | {"drawn_pixels": pixels(0, 1)}
    with torch.no_grad():
        assert torch.equal(model(batch).image_logits, plain(batch).image_logits)


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("alone", [False, True])
def test_each_size_trains_the_same_weights(model: VARGPT, size: int, alone: bool) -> None:
    row = [IDS.bos, 10, 11, 12, *drawn(size), IDS.eos]
    batch = {**make_batch([row, row]), "drawn_pixels": pixels(size), "size": size}
    model.train()
    output = model(batch, decoder_only=alone, generator=torch.Generator().manual_seed(0))
    assert output.image_logits.shape[:2] == (2, TOKENS[size]) and output.schedule == model.schedules[size]
    output.image_loss.backward()
    names = {name for name, parameter in model.visual_decoder.named_parameters() if parameter.grad is not None}
    assert {"word_embed.weight", "head.weight"} <= names and model.size == 0 and model.schedule == model.schedules[0]
    model.zero_grad()
    model.eval()


def test_positions_of_other_sizes_are_the_learned_ones_resized() -> None:
    decoder = sized_model("indices").visual_decoder
    view = decoder.with_schedule(ScaleSchedule(TALL))
    with torch.no_grad():
        zeros_1LC = torch.zeros(1, 40, 8)
        own, other = (
            each.embed_inputs(torch.tensor([0]), zeros_1LC[:, : each.schedule.num_tokens - 1])
            for each in (decoder, view)
        )
    assert other.shape == (1, 41, decoder.width)
    assert torch.equal(own[:, :5], other[:, :5]), "scales that are alike have the same"
    ramp = decoder.pos_1LC.detach().clone()
    with torch.no_grad():
        decoder.pos_1LC[:, 14:] = torch.arange(16.0).view(4, 4).transpose(0, 1).reshape(1, 16, 1)
        last = view._positions_of(3)[0, :, 0].view(6, 4)
        decoder.pos_1LC.copy_(ramp)
    assert torch.equal(
        last[:, 0], torch.nn.functional.interpolate(torch.arange(4.0)[None, None], 6, mode="linear")[0, 0]
    )
    assert torch.allclose(last[0], torch.tensor([0.0, 4.0, 8.0, 12.0]))


@pytest.mark.parametrize("size", [1, 2])
def test_a_drawing_with_caches_is_what_a_whole_pass_gives(model: VARGPT, size: int) -> None:
    how = GenerationSettings(
        max_new_tokens=1, size=size, keep_logits=True, keep_scales=True, visual=SamplingSettings(cfg=0.0)
    )
    (answer,) = generate(model, [Prompt(ASKS)], str, how)
    (picture,) = answer.pictures
    width, height = picture.image.size
    assert (height, width) == SHAPES[size] and picture.size == size and len(picture.scales) == 4
    assert answer.token_ids[: TOKENS[size] + 1] == drawn(size)[1:]
    batch = make_batch([[*ASKS, *drawn(size)[1:]]]) | {"drawn_indices": picture.indices[None], "size": size}
    with torch.no_grad():
        logits_1LV = model(batch).image_logits
    assert torch.allclose(logits_1LV[0], picture.logits, atol=1e-4)
    view = model.at(size)
    again = ((view.image_tokenizer.decode_indices(picture.indices[None]) + 1) * 127.5).round().byte()
    assert torch.equal(
        again[0].permute(1, 2, 0), torch.tensor(list(picture.image.getdata())).view(height, width, 3).byte()
    )


def test_answers_of_several_sizes_do_not_see_each_other(model: VARGPT) -> None:
    prompts = [
        Prompt(ASKS, row=row, settings=GenerationSettings(size=size, max_new_tokens=3, seed=5))
        for row, size in enumerate((1, 0, 2, 1))
    ]
    together = generate(model, prompts, str)
    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = generate(model, [prompt], str)
        assert torch.equal(alone.pictures[0].indices, answer.pictures[0].indices)
        assert alone.token_ids == answer.token_ids


def test_a_context_may_hold_pictures_of_all_sizes(model: VARGPT) -> None:
    """What a text token sees of two pictures of different sizes is what it sees of them in a row of text alone."""
    codes = [model.at(size).image_tokenizer.encode(pixels(size, 1))[0] for size in (1, 0)]
    ids = [IDS.bos, 10, *drawn(1), 11, *drawn(0), 12, 13]
    prompt = Prompt(ids, drawn_indices=codes, drawn_sizes=[1, 0])
    found_V = first_token_logits(model, [prompt, Prompt([IDS.bos, 10, 11])])[0]
    layout = find_pictures(torch.tensor([ids]), IDS, [41, 30])
    mask = attention_mask(layout, torch.ones(1, len(ids), dtype=torch.bool), model.schedules[1::-1], "block_causal")
    with torch.no_grad():
        embeds = model.language_model.embed(torch.tensor([ids]))
        for size, at, code in ((1, 3, codes[0]), (0, 3 + 41 + 3, codes[1])):
            view = model.at(size)
            pictures = view.drawn_pictures({"drawn_indices": code[None]})
            words = view.words(pictures, view.conditions.told(pictures.classes_Q))
            embeds[:, at : at + TOKENS[size]] = words
        logits = model.language_model.lm_head(model.language_model.model(embeds, mask))[0, -1]
    finite = found_V.isfinite()
    assert torch.allclose(found_V[finite], logits[finite], atol=1e-4)


def test_masks_follow_each_picture_s_own_scales() -> None:
    one, two = ScaleSchedule((1, (1, 2))), ScaleSchedule((1, 2))
    start, end, token = IDS.image_gen_start, IDS.image_gen_end, IDS.image_gen
    row = [IDS.bos, start, *[token] * 3, end, start, *[token] * 5, end]
    layout = find_pictures(torch.tensor([row]), IDS, [3, 5])
    assert layout.picture_BT[0, 2:5].tolist() == [0] * 3 and layout.picture_BT[0, 7:12].tolist() == [1] * 5
    assert layout.offset_BT[0, 7:12].tolist() == list(range(5))
    mask = attention_mask(layout, torch.ones(1, len(row), dtype=torch.bool), [one, two], "block_causal")[0, 0]
    lasts = [int(line.nonzero().max()) for line in mask]
    assert lasts == [0, 1, 2, 4, 4, 5, 6, 7, 11, 11, 11, 11, 12]
    for wrong in ([5, 3], [3], [3, 4], [8]):
        with pytest.raises(UserError, match="input_ids: "):
            find_pictures(torch.tensor([row]), IDS, wrong)


def test_wrong_sizes_are_refused(model: VARGPT) -> None:
    with pytest.raises(UserError, match="size: got 3, expected a number below 3, the sizes of the model"):
        generate(model, [Prompt(ASKS)], str, GenerationSettings(size=3))
    with pytest.raises(UserError, match="size: got -1, expected the number of one of the model's sizes"):
        GenerationSettings(size=-1)
    with pytest.raises(UserError, match="a picture of 41 tokens"):
        long = [*[10] * (512 - 34), IDS.image_gen_start]
        generate(model, [Prompt(long)], str, GenerationSettings(size=1))
    tokenizer = model.config.tokenizer
    for sizes, message in (
        (((1, 2, 3),), "as many scales in each as the 4"),
        (((1, 2, 3, 4),), "sizes that differ"),
        ((0.75,), r"got ratio 0.75 beside scales \[1, 2, 3, 4\], expected first ones of 1, 2, 4, 6"),
        (((1, 2, 2, 4),), "strictly increasing"),
    ):
        with pytest.raises(UserError, match=f"tokenizer.sizes: .*{message}"):
            replace(tokenizer, sizes=sizes)
    table = replace(tokenizer, scales=(1, 2, 4, 6), sizes=(0.75, 1.333))
    assert table.schedules[1].sizes == (1, 2, (3, 4), (6, 8)) and table.picture_shapes[2] == (32, 24)
    with pytest.raises(UserError, match="scales: got 3 of them, expected 4"):
        sized_model("indices").visual_decoder.with_schedule(ScaleSchedule((1, 2, 3)))
    with pytest.raises(UserError, match="scales: got 3 of them, expected 4"):
        sized_model("indices").image_tokenizer.with_schedule(ScaleSchedule((1, 2, 3)))
