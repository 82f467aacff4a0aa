"""Several records in a row train as they do in rows of their own: the same losses, counts and gradients."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cases import DRAWN, IDS, SEEN, random_codes, random_features, small_model
from tests.rounding import UNITS, assert_same_but_rounding
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.loading.collate import collate
from vargpt_lightning.data.loading.examples import Example
from vargpt_lightning.data.loading.packed import collate_packed
from vargpt_lightning.models.core.masks import (
    attention_mask,
    attention_spans,
    block_mask,
    dense_mask,
    find_pictures,
)
from vargpt_lightning.models.core.packed_rows import record_starts
from vargpt_lightning.models.vargpt import VARGPTOutput
from vargpt_lightning.utils.errors import UserError

ROW = 128
Batch = dict[str, Any]


def example(seed: int, *parts: str) -> Example:
    """A record of a question and an answer: "text", "seen" (of the user) and "drawn" (of the assistant)."""
    generator = torch.Generator().manual_seed(seed)
    words = iter(torch.randint(5, 90, (200,), generator=generator).tolist())
    ids, labels = [IDS.bos], [-100]
    for part in parts:
        words_of_text = [next(words) for _ in range(2 + seed % 4)]
        more = {"text": words_of_text, "seen": SEEN, "drawn": DRAWN}[part]
        ids += more
        answers = part == "text" and len(ids) > 6
        labels += more if answers else [DRAWN[0], *[-100] * 31] if part == "drawn" else [-100] * len(more)
    seen, drawn = parts.count("seen"), parts.count("drawn")
    codes = list(random_codes(drawn, seed)) if drawn else []
    features = list(random_features(seen, seed)) if seen else []
    return Example(array("q", [*ids, IDS.eos]), array("q", [*labels, IDS.eos]), features, codes)


UNDERSTANDING = [("seen", "text", "text"), ("text", "text"), ("seen", "text", "seen", "text"), ("seen", "text")]
GENERATION = [("text", "drawn"), ("text", "text", "drawn", "text"), ("text", "drawn", "text", "drawn")]
MIXED = [("seen", "text", "drawn", "text"), *UNDERSTANDING, *GENERATION, ("text", "drawn", "text", "seen", "text")]
KINDS = {"understanding": UNDERSTANDING, "generation": GENERATION, "mixed": MIXED}


def examples(kind: str) -> list[Example]:
    return [example(seed, *parts) for seed, parts in enumerate(KINDS[kind], start=3)]


def packed(kind: str) -> Batch:
    batch = collate_packed(examples(kind), IDS.pad, ROW)
    assert len(batch["input_ids"]) < len(KINDS[kind]) and batch["segment_ids"].max() > 1
    assert kind == "understanding" or len(batch["input_ids"]) > 1, "several rows of several records"
    return batch


def gradients(model: VARGPT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """Where summands cancel, the rounding of the largest is left, so the largest gradient counts a little too."""
    assert one.keys() == two.keys() and len(one) > 20
    largest = max(value.abs().max().item() for value in one.values())
    for name, value in one.items():
        own, eps = value.abs().max().item(), torch.finfo(value.dtype).eps
        assert (value - two[name]).abs().max().item() <= eps * (UNITS * own + 4 * largest), name


def assert_same_output(one: VARGPTOutput, two: VARGPTOutput) -> None:
    for name in ("text_tokens", "image_tokens", "text_correct", "image_correct"):
        assert int(getattr(one, name)) == int(getattr(two, name)), name
    if one.image_loss is None or two.image_loss is None:
        assert one.image_loss is two.image_loss is None
    else:
        assert_same_but_rounding(one.image_loss, two.image_loss)
        assert_same_but_rounding(one.image_loss_per_scale, two.image_loss_per_scale)
        assert_same_but_rounding(one.image_logits, two.image_logits)
        assert torch.equal(one.image_indices, two.image_indices)
    assert_same_but_rounding(one.text_loss, two.text_loss)


@pytest.fixture(scope="module")
def models() -> dict[str, VARGPT]:
    """The paper's settings, the same with plain causal attention, and those of the released code."""
    return {
        "paper": small_model(),
        "causal": small_model(visual_attention="causal"),
        "official": small_model(preset="official"),
    }


# Losses and gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["paper", "causal"])
def test_packed_records_train_as_in_rows_of_their_own(preset: str, kind: str, models: dict[str, VARGPT]) -> None:
    model = models[preset].train()
    outputs = [
        model(batch, generator=torch.Generator().manual_seed(5))  # of prompt dropout, picture by picture
        for batch in (packed(kind), collate(examples(kind), IDS.pad))
    ]
    model.eval()
    assert_same_output(*outputs)
    assert (outputs[0].image_loss is None) == (kind == "understanding")
    assert_same_gradients(*(gradients(model, output.loss) for output in outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_records_train_as_each_by_itself(kind: str, models: dict[str, VARGPT]) -> None:
    """The released code also trains a batch's padding, so that its records are compared one by one."""
    model = models["official"].train()
    whole = model(packed(kind))
    alone = [model(collate([one], IDS.pad)) for one in examples(kind)]
    model.eval()
    expected = torch.zeros(())
    for name in ("text", "image"):
        counts = [int(getattr(one, f"{name}_tokens")) for one in alone]
        assert sum(counts) == int(getattr(whole, f"{name}_tokens"))
        losses = [(getattr(one, f"{name}_loss"), count) for one, count in zip(alone, counts, strict=True) if count]
        if losses:
            mean = torch.stack([loss * count for loss, count in losses]).sum() / sum(counts)
            assert_same_but_rounding(getattr(whole, f"{name}_loss"), mean)
            expected = expected + mean
    assert_same_gradients(gradients(model, whole.loss), gradients(model, expected))


def test_prompts_are_dropped_record_by_record() -> None:
    """All prompts dropped: what a picture is drawn from is its start token alone, packed or not."""
    model = small_model(prompt_dropout=0.5).train()
    found = []
    for batch in (packed("mixed"), collate(examples("mixed"), IDS.pad)):
        found.append(model(batch, generator=torch.Generator().manual_seed(0)).image_logits)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    other = model(packed("mixed"), generator=torch.Generator().manual_seed(1)).image_logits
    assert not torch.allclose(found[0], other, atol=1e-4)


def test_without_segments_records_do_see_each_other(models: dict[str, VARGPT]) -> None:
    """The equality above is no accident of small weights."""
    batch = packed("mixed")
    with torch.no_grad():
        kept = models["paper"](batch)
        del batch["segment_ids"]
        mixed = models["paper"](batch)
    assert abs(kept.text_loss - mixed.text_loss) > 1e-3
    assert (kept.image_logits - mixed.image_logits).abs().max() > 1e-3


# A record's output stays when its neighbours change


def changed(batch: Batch, row: int, segment: int) -> Batch:
    """Other words, features and codes in one segment."""
    result = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
    ids_BT, segments_BT = result["input_ids"], result["segment_ids"]
    own_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    own_BT[row] = segments_BT[row] == segment
    words_BT = own_BT & (ids_BT < 100)
    ids_BT[words_BT] = (ids_BT[words_BT] + 7) % 90 + 5
    for name, mark, size in (("vision_features", IDS.image, 4), ("drawn_indices", IDS.image_gen, 30)):
        if name in result:
            of_segment = own_BT[ids_BT == mark].view(-1, size)[:, 0]
            result[name][of_segment] = (result[name][of_segment] + 1) % 48
    return result


@pytest.mark.parametrize("preset", ["paper", "causal", "official"])
def test_a_neighbours_tokens_move_nothing(preset: str, models: dict[str, VARGPT]) -> None:
    model, batch = models[preset], packed("mixed")
    segments_BT, drawn_BT = batch["segment_ids"], batch["input_ids"] == IDS.image_gen
    with torch.no_grad():
        before = model(batch, return_text_logits=True)
        for row in range(len(segments_BT)):
            for segment in range(1, int(segments_BT[row].max()) + 1):
                own_BT = torch.zeros_like(drawn_BT)
                own_BT[row] = segments_BT[row] == segment
                after = model(changed(batch, row, segment), return_text_logits=True)
                moved_BT = (before.text_logits - after.text_logits).abs().amax(-1) > 0
                assert moved_BT[own_BT].any()
                assert not moved_BT[~own_BT & (segments_BT > 0)].any()
                own_Q = own_BT[drawn_BT].view(-1, 30)[:, 0]
                moved_Q = (before.image_logits - after.image_logits).abs().amax((1, 2)) > 0
                assert moved_Q[own_Q].all() and not moved_Q[~own_Q].any()


# Masks


def layout_of(batch: Batch) -> Any:
    return find_pictures(batch["input_ids"], IDS, 30)


def test_starts_of_records() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    assert record_starts(segments).tolist() == [[0, 0, 2, 2, 2, 5, 0, 0], [0] * 8]


def test_the_mask_is_made_of_the_records_own_masks(models: dict[str, VARGPT]) -> None:
    batch, schedule = packed("mixed"), models["paper"].schedule
    hidden_Q = torch.tensor([True, False, False, True, False, True])[: len(batch["drawn_indices"])]
    starts_BT = record_starts(batch["segment_ids"])
    whole = attention_mask(layout_of(batch), batch["attention_mask"], schedule, "block_causal", hidden_Q, starts_BT)[
        :, 0
    ]
    singles = iter(examples("mixed"))
    picture = 0
    for row, segments_T in enumerate(batch["segment_ids"]):
        for segment in range(1, int(segments_T.max()) + 1):
            alone = collate([next(singles)], IDS.pad)
            count = len(alone.get("drawn_indices", []))
            mask = attention_mask(
                layout_of(alone),
                alone["attention_mask"],
                schedule,
                "block_causal",
                hidden_Q[picture : picture + count] if count else None,
            )
            picture += count
            own_T = segments_T == segment
            assert torch.equal(whole[row][own_T][:, own_T], mask[0, 0])
            assert not whole[row][own_T][:, ~own_T].any()
    assert whole.any(-1).all(), "also padding attends to something: no row of a softmax is empty"


def test_the_block_mask_says_the_same_as_the_dense_one(models: dict[str, VARGPT]) -> None:
    from torch.nn.attention.flex_attention import create_mask

    batch, schedule = packed("mixed"), models["paper"].schedule
    hidden_Q = torch.arange(len(batch["drawn_indices"])) % 2 == 0
    starts_BT = record_starts(batch["segment_ids"])
    spans = attention_spans(layout_of(batch), batch["attention_mask"], schedule, "block_causal", hidden_Q, starts_BT)
    made = block_mask(spans)
    rows, length = batch["input_ids"].shape
    assert torch.equal(create_mask(made.mask_mod, rows, 1, length, length, device="cpu"), dense_mask(spans))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["eager", "flex_attention"])
@pytest.mark.parametrize("segments", [True, False])
def test_other_kernels_give_the_same(segments: bool, kernel: str, models: dict[str, VARGPT]) -> None:
    batch = packed("mixed") if segments else collate(examples("mixed"), IDS.pad)
    other = small_model()
    other.language_model.kernel = kernel
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        one, two = models["paper"](batch), other(batch)
    torch.testing.assert_close(one.text_loss, two.text_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(one.image_logits, two.image_logits, rtol=1e-4, atol=5e-5)


def test_a_kernel_without_masks_is_refused() -> None:
    model = small_model()
    model.language_model.kernel = "flash_attention_2"
    with pytest.raises(UserError, match=r"attention: got 'flash_attention_2', expected one of sdpa, eager, flex"):
        model(packed("understanding"))
