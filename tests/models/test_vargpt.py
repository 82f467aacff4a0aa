"""The assembly against the released code's values, and each of the settings that tell the two presets apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.golden import Golden, load_golden
from tests.models.cases import (
    DRAWN,
    IDS,
    SCALE_OF,
    SEEN,
    golden_model,
    make_batch,
    moved_positions,
    random_codes,
    random_features,
    small_model,
)
from tests.rounding import assert_same_but_rounding
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.models.core.config import PRESET_STAGES, DecoderConfig, VisionConfig
from vargpt_lightning.models.core.masks import attention_mask, find_pictures
from vargpt_lightning.models.vargpt import SUBMODULES, VARGPTOutput
from vargpt_lightning.utils.errors import UserError

START = 6  # Where the drawn picture of ROW begins.
ROW = [IDS.bos, 5, 6, 7, 8, 9, *DRAWN, 10, IDS.eos]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def gold() -> Golden:
    return load_golden("a3_vargpt_tiny_io")


@pytest.fixture(scope="module")
def official() -> VARGPT:
    return golden_model()


@pytest.fixture(scope="module")
def paper() -> VARGPT:
    return small_model()


# The released code's values


def train_batch(gold: Golden) -> dict[str, Tensor]:
    return {
        "input_ids": gold.tensors["train.input_ids"],
        "attention_mask": gold.tensors["train.attention_mask"].bool(),
        "labels": gold.tensors["train.labels_arg"],
        "drawn_pixels": gold.tensors["train.pixel_gen_values"],
    }


@pytest.mark.parametrize(("name", "class_dropout"), [("train_nodrop", 0.0), ("train_alldrop", 1.0)])
def test_training_agrees_with_the_released_code(
    gold: Golden, official: VARGPT, name: str, class_dropout: float
) -> None:
    official.visual_decoder.class_dropout = class_dropout
    output = official.train()(train_batch(gold), return_text_logits=True)
    official.eval().visual_decoder.class_dropout = 0.0
    expected = gold.meta["results"][name]
    assert output.image_indices is not None and torch.equal(output.image_indices, gold.tensors["train.image_labels"])
    close(output.text_logits, gold.tensors[f"{name}.text_logits"])
    close(output.image_logits, gold.tensors[f"{name}.image_logits"])
    assert output.text_loss.item() == pytest.approx(expected["text_loss"], abs=1e-4)
    assert output.image_loss.item() == pytest.approx(expected["image_loss"], abs=1e-4)
    assert output.loss.item() == pytest.approx(expected["loss"], abs=1e-4)
    assert int(output.text_tokens) == expected["n_text_targets"]


def test_training_gradients_agree_with_the_released_code(gold: Golden, official: VARGPT) -> None:
    official.zero_grad()
    official.train()(train_batch(gold)).loss.backward()
    official.eval()
    expected = gold.meta["results"]["train_nodrop"]["grad_norm"]
    pairs = {
        "language_model.model.embed_tokens.weight": "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight": "language_model.lm_head.weight",
        "generation_projector_in.mlp.0.weight": "image_gen_projector.mlp.0.weight",
        "generation_projector_out.mlp.2.weight": "image_gen_projector_out.mlp.2.weight",
        "visual_decoder.word_embed.weight": "vargpt_gen.word_embed.weight",
        "visual_decoder.class_emb.weight": "vargpt_gen.class_emb.weight",
        "visual_decoder.head.weight": "vargpt_gen.head.weight",
    }
    # The released code's embedding gives its padding row no gradient; ours treats it as any other row.
    official.get_parameter("language_model.model.embed_tokens.weight").grad[IDS.pad] = 0
    for ours, theirs in pairs.items():
        grad = official.get_parameter(ours).grad
        assert grad is not None and grad.norm().item() == pytest.approx(expected[theirs], rel=1e-3), ours
    assert official.get_parameter("generation_projector_in.ln_q.weight").grad is None
    official.zero_grad()


def test_two_pictures_in_one_row_agree_with_the_released_code(gold: Golden, official: VARGPT) -> None:
    ids = gold.tensors["train2.input_ids"]
    pixels = gold.tensors["train.pixel_gen_values"]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids, "drawn_pixels": pixels}
    output = official.train()(batch, return_text_logits=True)
    official.eval()
    close(output.text_logits, gold.tensors["train2.text_logits"])
    close(output.image_logits, gold.tensors["train2.image_logits"])
    assert output.loss.item() == pytest.approx(gold.meta["results"]["train_two_images_one_seq"]["loss"], abs=1e-4)


def test_understanding_agrees_with_the_released_code(gold: Golden, official: VARGPT) -> None:
    # The second row is padded on the left there and on the right here; rotary positions are relative.
    ids, valid, labels, logits = (
        torch.stack([gold.tensors[f"und.{name}"][0], gold.tensors[f"und.{name}"][1].roll(-1, 0)])
        for name in ("input_ids", "attention_mask", "labels", "logits")
    )
    batch = {"input_ids": ids, "attention_mask": valid.bool(), "labels": labels}
    output = official({**batch, "pixel_values": gold.tensors["und.pixel_values"]}, return_text_logits=True)
    close(output.text_logits[valid.bool()], logits[valid.bool()])
    assert output.text_loss.item() == pytest.approx(gold.meta["results"]["understanding_eval_loss"], abs=1e-4)
    features = official.vision_projector(official.see(gold.tensors["und.pixel_values"])).flatten(0, 1)
    close(features, gold.tensors["und.image_features"])


def test_mixed_row_is_the_released_one_up_to_its_drawn_picture(gold: Golden, official: VARGPT) -> None:
    """The released code leaves the placeholder's text embedding where a drawn picture stands beside a seen one."""
    ids = gold.tensors["mixed.input_ids"]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    batch["pixel_values"] = gold.tensors["und.pixel_values"][:1]
    batch["drawn_pixels"] = gold.tensors["train.pixel_gen_values"][:1]
    output = official(batch, return_text_logits=True)
    first_visual = ids[0].tolist().index(IDS.image_gen)
    close(output.text_logits[:, :first_visual], gold.tensors["mixed.text_logits"][:, :first_visual])
    assert (output.image_logits - gold.tensors["mixed.image_logits"]).abs().max() > 1e-2


# Who attends to whom


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 5, 20, 29])
def test_block_causal_moves_own_scale_and_all_after(paper: VARGPT, offset: int) -> None:
    first_of_scale = SCALE_OF.index(SCALE_OF[offset])
    expected = set(range(START + 1 + first_of_scale, len(ROW)))
    assert moved_positions(paper, ROW, START + 1 + offset) == expected


@pytest.mark.parametrize("offset", [0, 1, 3, 20, 29])
def test_causal_moves_only_what_comes_after(offset: int) -> None:
    model = small_model(visual_attention="causal")
    assert moved_positions(model, ROW, START + 1 + offset) == set(range(START + 1 + offset, len(ROW)))


@pytest.mark.parametrize("position", [0, START, len(ROW) - 2])
def test_text_stays_causal_beside_block_causal_pictures(paper: VARGPT, position: int) -> None:
    assert moved_positions(paper, ROW, position) == set(range(position, len(ROW)))


def test_second_picture_sees_the_first_but_not_the_reverse(paper: VARGPT) -> None:
    row = [IDS.bos, 5, *DRAWN, 6, *DRAWN, IDS.eos]
    second = row.index(IDS.image_gen_start, 3)
    assert moved_positions(paper, row, 4) == set(range(4, len(row)))
    assert moved_positions(paper, row, second + 30) == set(range(second + 15, len(row)))


def test_hidden_context_is_not_seen_by_the_picture_but_by_text_after_it() -> None:
    model = small_model(prompt_dropout=1.0)
    picture = set(range(START, START + 31))
    assert moved_positions(model, ROW, 2, training=True) == set(range(2, len(ROW))) - picture
    assert moved_positions(model, ROW, START, training=True) == set(range(START, len(ROW)))


def test_context_is_hidden_from_the_chosen_picture_alone() -> None:
    rows = [[IDS.bos, 5, *DRAWN, 6, *DRAWN, IDS.eos], [IDS.bos, 7, 8, *DRAWN]]
    batch = make_batch(rows)
    layout = find_pictures(batch["input_ids"], IDS, 30)
    schedule = small_model().schedule
    arguments = layout, batch["attention_mask"], schedule, "block_causal"
    seen = attention_mask(*arguments)
    hidden = attention_mask(*arguments, torch.tensor([False, True, False]))
    second = rows[0].index(IDS.image_gen_start, 3)
    assert (seen[:, 0] & ~hidden[:, 0]).any(-1).nonzero().tolist() == [[0, second + i] for i in range(31)]
    assert not hidden[0, 0, second : second + 31, :second].any()
    assert torch.equal(hidden[0, 0, :, second:], seen[0, 0, :, second:])


def test_released_masking_is_causal_inside_the_language_model(official: VARGPT) -> None:
    """The golden file's probe: changing the first token of the last scale changes nothing before it."""
    layout = find_pictures(torch.tensor([ROW]), IDS, 30)
    drawn = official.drawn_pictures({"drawn_indices": random_codes(1)})
    assert official.training_mask(make_batch([ROW]), layout, drawn) is None
    assert min(moved_positions(official, ROW, START + 1 + 14)) == START + 1 + 14


# The table of differences: prompt dropout, text loss, class row, top-p


def image_loss(model: VARGPT, prompt: list[int], seed: int = 0) -> float:
    batch = {**make_batch([[IDS.bos, *prompt, *DRAWN, IDS.eos]]), "drawn_indices": random_codes(1)}
    with torch.no_grad():
        return model(batch, generator=torch.Generator().manual_seed(seed)).image_loss.item()


def test_prompt_dropout_hides_the_prompt_in_training_only() -> None:
    model = small_model(prompt_dropout=1.0)
    assert image_loss(model.eval(), [5, 6]) != pytest.approx(image_loss(model, [7, 8]), abs=1e-4)
    assert_same_but_rounding(image_loss(model.train(), [5, 6]), image_loss(model, [7, 8]))


def test_prompt_dropout_is_drawn_for_each_picture_at_its_rate() -> None:
    model = small_model(prompt_dropout=0.25).train()
    row = [IDS.bos, 5, *DRAWN]
    batch = make_batch([row] * 400)
    layout = find_pictures(batch["input_ids"], IDS, 30)
    drawn = model.drawn_pictures({"drawn_indices": random_codes(400)})
    mask = model.training_mask(batch, layout, drawn, torch.Generator().manual_seed(0))
    again = model.training_mask(batch, layout, drawn, torch.Generator().manual_seed(0))
    assert mask is not None and torch.equal(mask, again)
    hidden = ~mask[:, 0, row.index(IDS.image_gen), 0]
    assert 0.18 < hidden.float().mean() < 0.32


def test_presets_differ_in_prompt_dropout_and_top_p(official: VARGPT, paper: VARGPT) -> None:
    assert (paper.settings.prompt_dropout, official.settings.prompt_dropout) == (0.1, 0.0)
    assert (paper.sampling_settings().top_p, official.sampling_settings().top_p) == (0.95, 0.96)
    assert paper.sampling_settings(greedy=True).greedy


@pytest.mark.parametrize(("text_loss", "expected"), [("answer", 4), ("all", 10)])
def test_text_loss_counts_answer_tokens_or_all(text_loss: Any, expected: int) -> None:
    """Answer: start, end, a word and the end token. All: the user's four words and two paddings as well."""
    model = small_model(text_loss=text_loss)
    picture_row = [IDS.bos, 5, 6, 7, 8, *DRAWN, 10, IDS.eos]
    batch = make_batch([picture_row, [IDS.bos, *[9] * (len(picture_row) + 1)]], prompt_length=5)
    batch["labels"][1] = -100
    output = model({**batch, "drawn_indices": random_codes(1)})
    assert int(output.text_tokens) == expected


@pytest.mark.parametrize(
    ("class_row", "dropout", "row"), [("null", 0.0, 103), ("start_token", 0.0, 102), ("start_token", 1.0, 103)]
)
def test_class_row_in_training(class_row: Any, dropout: float, row: int) -> None:
    model = small_model(class_row=class_row).train()
    model.visual_decoder.class_dropout = dropout
    model({**make_batch([ROW]), "drawn_indices": random_codes(1)}).image_loss.backward()
    used = model.visual_decoder.class_emb.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert used == [row]


def test_class_row_is_null_in_evaluation() -> None:
    model = small_model(class_row="start_token")
    drawn = model.drawn_pictures({"drawn_indices": random_codes(2)})
    assert drawn is not None and drawn.classes_Q.tolist() == [103, 103]


def test_preset_stages_name_submodules_and_differ_in_the_vision_projector() -> None:
    for stages in PRESET_STAGES.values():
        assert all(name in SUBMODULES for trained in stages.values() for name in trained)
    assert "vision_projector" in PRESET_STAGES["paper"]["understanding"]
    assert "vision_projector" not in PRESET_STAGES["official"]["understanding"]


# Batches


MIXED = [
    [IDS.bos, *SEEN, 5, 6, 7, IDS.eos],
    [IDS.bos, 8, 9, *DRAWN, 10, IDS.eos],
    [IDS.bos, *SEEN, 5, *DRAWN, 11, *SEEN, 12, *DRAWN, IDS.eos],
    [IDS.bos, 20, 21, 22, 23, IDS.eos],
]


def run_mixed(model: VARGPT, rows: slice = slice(None)) -> VARGPTOutput:
    seen_of, drawn_of = [0, 1, 1, 3, 3], [0, 0, 1, 3, 3]
    begin, end, _ = rows.indices(4)
    batch: dict[str, Tensor] = make_batch(MIXED[rows])
    features = random_features(3)[seen_of[begin] : seen_of[end]]
    codes = random_codes(3)[drawn_of[begin] : drawn_of[end]]
    batch |= {"vision_features": features} if len(features) else {}
    batch |= {"drawn_indices": codes} if len(codes) else {}
    return model(batch, return_text_logits=True)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_rows_of_a_mixed_batch_are_what_they_are_alone(preset: Any) -> None:
    model = small_model(preset=preset)
    together = run_mixed(model)
    alone = [run_mixed(model, slice(i, i + 1)) for i in range(4)]
    for i, (row, output) in enumerate(zip(MIXED, alone, strict=True)):
        close(together.text_logits[i, : len(row)], output.text_logits[0])
    close(together.image_logits, torch.cat([x.image_logits for x in alone if x.image_logits is not None]))
    if preset == "paper":
        assert int(together.text_tokens) == sum(int(x.text_tokens) for x in alone)
        total = sum(x.text_loss.item() * int(x.text_tokens) for x in alone)
        assert together.text_loss.item() == pytest.approx(total / int(together.text_tokens), abs=1e-5)
        assert int(together.text_correct) == sum(int(x.text_correct) for x in alone)


def test_every_part_of_a_mixed_batch_gets_a_gradient() -> None:
    model = small_model().train()
    run_mixed(model).loss.backward()
    for part in ("language_model", "vision_projector", "visual_decoder", "generation_projectors"):
        for attribute in SUBMODULES[part]:
            missing = [name for name, p in getattr(model, attribute).named_parameters() if p.grad is None]
            assert not missing, (part, missing)
    assert all(p.grad is None for p in model.image_tokenizer.parameters())


def test_counts_and_losses_belong_together(paper: VARGPT) -> None:
    output = run_mixed(paper)
    sizes = torch.tensor([1.0, 4.0, 9.0, 16.0])
    assert int(output.image_tokens) == 90
    assert output.image_loss.item() == pytest.approx(
        ((output.image_loss_per_scale * sizes).sum() / 30).item(), abs=1e-5
    )
    correct = (output.image_logits.argmax(-1) == random_codes(3)).sum()
    assert int(output.image_correct) == int(correct)
    assert output.loss.item() == pytest.approx(output.text_loss.item() + output.image_loss.item(), abs=1e-5)


def test_what_a_batch_does_not_train_has_no_loss(paper: VARGPT) -> None:
    text_only = paper(make_batch([MIXED[3]]))
    assert text_only.image_loss is None and text_only.image_logits is None and int(text_only.image_tokens) == 0
    batch = make_batch([MIXED[1]])
    batch["labels"].fill_(-100)
    image_only = paper({**batch, "drawn_indices": random_codes(1)})
    assert image_only.text_loss is None and int(image_only.text_tokens) == 0
    assert image_only.loss.item() == pytest.approx(image_only.image_loss.item())


def test_text_logits_are_computed_for_trained_positions_only(paper: VARGPT) -> None:
    rows: list[int] = []
    handle = paper.language_model.lm_head.register_forward_hook(
        lambda _, args, __: rows.append(args[0].shape[:-1].numel())
    )
    output = paper({**make_batch([ROW]), "drawn_indices": random_codes(1)})
    handle.remove()
    assert rows == [int(output.text_tokens)]


def test_pixels_and_what_is_computed_from_them_give_the_same(paper: VARGPT) -> None:
    batch = make_batch([MIXED[2]])
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    from_pixels = paper({**batch, "pixel_values": pixels, "drawn_pixels": pictures})
    ready = {"vision_features": paper.see(pixels), "drawn_indices": paper.image_tokenizer.encode(pictures)}
    assert_same_but_rounding(paper({**batch, **ready}).loss, from_pixels.loss)


def test_features_are_dropped_where_the_projector_is_trained_alone() -> None:
    model = small_model().train()

    def loss() -> float:
        torch.manual_seed(0)  # prompts are dropped at random too
        return run_mixed(model).text_loss.item()

    plain = loss()
    model.config = replace(model.config, vision=replace(model.config.vision, dropout=0.5))
    assert loss() != plain
    model.vision_projector.eval()
    assert loss() == plain
    with pytest.raises(UserError, match=r"vision\.dropout.*1\.0"):
        replace(model.config.vision, dropout=1.0)


def test_decoder_only_is_the_decoder_by_itself(paper: VARGPT) -> None:
    codes = random_codes(2)
    decoder = paper.visual_decoder
    logits = decoder(torch.tensor([103, 103]), paper.image_tokenizer.next_scale_inputs(codes))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten())
    output = paper({"drawn_indices": codes}, decoder_only=True)
    assert_same_but_rounding(output.image_loss, expected)
    assert output.text_loss is None


@pytest.mark.parametrize("whole", [False, True])
def test_bfloat16_gives_nearly_the_same(whole: bool) -> None:
    """By autocast, and with all weights cast; backward too."""
    model = small_model(prompt_dropout=0.0).train()
    expected = run_mixed(model)
    model = model.bfloat16() if whole else model
    with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
        output = run_mixed(model)
    output.loss.backward()
    assert output.image_loss.item() == pytest.approx(expected.image_loss.item(), rel=0.1)
    assert output.text_loss.item() == pytest.approx(expected.text_loss.item(), rel=0.1)


def test_model_without_a_tower_writes_and_draws() -> None:
    model = small_model(vision=VisionConfig(kind="none"))
    assert model.vision_tower is None and model.vision_projector is None
    assert model({**make_batch([ROW]), "drawn_indices": random_codes(1)}).loss is not None
    with pytest.raises(UserError, match="pixel_values"):
        model({**make_batch([MIXED[0]]), "pixel_values": torch.zeros(1, 3, 28, 28)})


@pytest.mark.parametrize(
    ("row", "extra", "match"),
    [
        ([IDS.bos, 5, *DRAWN], {}, "30 positions wait for tokens of drawn pictures, but the batch gives 0"),
        ([IDS.bos, 5], {"drawn_indices": random_codes(1)}, "0 positions wait for tokens of drawn"),
        ([IDS.bos, *SEEN], {"vision_features": random_features(2)}, "4 positions wait for tokens of seen"),
        ([IDS.bos, *DRAWN[:-3]], {"drawn_indices": random_codes(1)}, "multiples of 30"),
        ([IDS.bos, *DRAWN[1:]], {"drawn_indices": random_codes(1)}, "follow <image_gen_start>"),
        ([IDS.bos, *SEEN], {"pixel_values": torch.zeros(1, 3, 32, 32)}, "pixel_values: got shape"),
    ],
)
def test_pictures_that_do_not_match_the_text_are_refused(
    paper: VARGPT, row: list[int], extra: dict[str, Tensor], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        paper({**make_batch([row]), **extra})


@pytest.mark.parametrize("kind", ["shared", "none"])
def test_projectors_may_be_shared_or_left_out_where_the_widths_are_one(kind: Any) -> None:
    model = small_model(generation_projectors=kind).train()
    run_mixed(model).loss.backward()
    into, out = model.generation_projector_in, model.generation_projector_out
    if kind == "shared":
        assert into is out and all(p.grad is not None for p in into.parameters())
    else:
        assert not list(into.parameters()) and not list(out.parameters())
    other = small_model(1, generation_projectors=kind)
    layouts.load(other, model.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_one_projector_for_two_widths_is_refused() -> None:
    with pytest.raises(UserError, match=r"generation_projectors: got .none., expected two where decoder\.width"):
        small_model(generation_projectors="none", decoder=DecoderConfig(depth=2, width=64, heads=4, classes=103))
