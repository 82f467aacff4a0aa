"""What a batch is of its step: counts over batches and processes, and rows that only keep a process in step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.rounding import assert_same_but_rounding
from tests.tiny import tiny_config, tiny_stage
from tests.tiny_training import tiny_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.shared_random import RankInvariantRng
from vargpt_lightning.modules.step_counts import SHARE, Counts, Share, StepBatches
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.training.data.stage_data import StageData

IMAGE, START, GEN, END, PAD, BOS, EOS = 3, 4, 6, 5, 0, 1, 2
LENGTH, PATCHES = 5, 4


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny_model()


def text_batch(rows: int, trained: int) -> dict[str, Any]:
    """Rows of eight ids, the last `trained` of each a target."""
    ids = torch.full((rows, 8), 50)
    labels = torch.full((rows, 8), -100)
    labels[:, 8 - trained :] = 50
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": labels}


def drawn_batch(rows: int) -> dict[str, Any]:
    ids = torch.tensor([[BOS, START, *[GEN] * LENGTH, END]]).repeat(rows, 1)
    labels = torch.full_like(ids, -100)
    pictures = torch.zeros(rows, LENGTH, dtype=torch.long)
    mask = torch.ones_like(ids).bool()
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "drawn_indices": pictures}


class Beside(StepBatches):
    """The second of two processes; the first has given batches."""

    others: list[dict[str, Any]]

    def _exchange(self, own: list[Counts]) -> tuple[list[list[Counts]], int]:
        return [[self.count(batch) for batch in self.others], own], 1


def beside(model: VARGPT, others: list[Any], own: list[Any], **settings: Any) -> list[dict[str, Any]]:
    batches = Beside(own, model, processes=2, **settings)
    batches.others = others
    return list(batches)


def test_factors_make_the_mean_over_all_tokens_of_a_step(model: VARGPT) -> None:
    """The trainer divides by the batches of a step, the processes' gradients are averaged."""
    others, own = [text_batch(2, 3), text_batch(2, 1)], [text_batch(2, 5), text_batch(2, 2)]
    shares = [batch[SHARE] for batch in beside(model, others, own, accumulate=2)]
    tokens = 2 * (3 + 1 + 5 + 2)
    for share, trained in zip(shares, (5, 2), strict=True):
        assert share.text_factor() == pytest.approx(2 * trained / tokens * 4)
    (alone,) = StepBatches([text_batch(2, 3)], model)
    assert alone[SHARE].text_factor() == 1.0


def test_the_counts_are_those_of_the_loss(model: VARGPT) -> None:
    batch = text_batch(3, 4)
    assert StepBatches([], model).count(batch).text == int(model.train(False)(batch).text_tokens) == 12


def test_a_process_without_what_others_have_gets_an_idle_row(model: VARGPT) -> None:
    (batch,) = beside(model, [drawn_batch(2)], [text_batch(2, 3)])
    share = batch[SHARE]
    assert batch["input_ids"].shape == (3, 9) and batch["drawn_indices"].shape == (1, LENGTH)
    assert (share.own.drawn, share.batch.drawn, share.image_factor()) == (0, 2, 0.0)
    output = model.eval()(batch)
    assert output.text_tokens == 6 and output.image_loss is not None, "its targets count as before"
    with_features = text_batch(2, 3) | {"vision_features": torch.ones(1, PATCHES, 16)}
    (batch,) = beside(model, [with_features], [text_batch(2, 3)])
    assert batch["vision_features"].shape == (1, PATCHES, 16) and batch[SHARE].own.seen == 0
    assert int((batch["labels"][:, 1:] != -100).sum()) == 6
    (batch,) = beside(model, [text_batch(2, 3)], [drawn_batch(2)])
    assert int((batch["labels"][:, 1:] != -100).sum()) == 1 and batch[SHARE].text_factor() == 0.0


def test_an_idle_row_changes_no_loss(model: VARGPT) -> None:
    plain = model.eval()(text_batch(2, 3))
    (batch,) = beside(model, [drawn_batch(1)], [text_batch(2, 3)])
    assert_same_but_rounding(model(batch).text_loss, plain.text_loss)


def packed(batch: dict[str, Any]) -> dict[str, Any]:
    """The same rows, of two records each, or of one with a picture."""
    segments = batch["attention_mask"].long()
    if "drawn_indices" not in batch:
        segments[:, segments.shape[1] // 2 :] += 1
    return batch | {"segment_ids": segments, "samples": int(segments.amax(1).sum())}


def gradients(model: VARGPT, batch: dict[str, Any], text: float, image: float) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output = model(batch)
    terms = [(text, output.text_loss), (image, output.image_loss)]
    torch.stack([factor * loss for factor, loss in terms if loss is not None]).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("settings", [{"text_loss": "answer"}, {"text_loss": "all"}, {"preset": "official"}])
def test_idle_rows_count_nothing_whatever_text_is_trained(settings: dict[str, Any], pack: bool) -> None:
    """Neither their own ids and padding, nor the padding that they bring to the rows beside them."""
    torch.manual_seed(0)
    model = VARGPT(replace(tiny_config(), class_row="null", **settings)).eval()
    seen = text_batch(1, 2) | {"vision_features": torch.randn(1, PATCHES, 16)}
    seen["input_ids"][:, 1 : 1 + PATCHES] = IMAGE
    long = {name: torch.cat([value] * 4, dim=1) for name, value in text_batch(2, 3).items()}
    cases = [(text_batch(2, 3), drawn_batch(2)), (long, drawn_batch(1)), (drawn_batch(2), seen), (seen, drawn_batch(2))]
    wide = drawn_batch(1) | {"vision_features": torch.randn(3, PATCHES, 16)}
    wide["input_ids"] = torch.cat([torch.full((1, 3 * PATCHES), IMAGE), wide["input_ids"]], dim=1)
    wide["attention_mask"] = torch.ones_like(wide["input_ids"]).bool()
    wide["labels"] = torch.full_like(wide["input_ids"], -100)
    cases.append((text_batch(1, 3), wide))
    for own, other in cases:
        plain, others = (packed(dict(batch)) if pack else dict(batch) for batch in (own, other))
        counted = StepBatches([], model).count(plain)
        (batch,) = beside(model, [others], [dict(plain)])
        assert len(batch["input_ids"]) == len(plain["input_ids"]) + 1
        share = batch[SHARE]
        assert share.own == counted
        output = model(batch)
        assert int(output.text_tokens) == (counted.text or bool(share.batch.text))
        expected = gradients(model, plain, share.text_factor(), share.image_factor())
        found = gradients(model, batch, share.text_factor(), share.image_factor())
        norm = torch.stack([value.norm() for value in expected.values()]).norm()
        for name, value in found.items():
            assert (value - expected.get(name, torch.zeros_like(value))).norm() <= 1e-5 * norm, name


def test_alike_batches_get_none(model: VARGPT) -> None:
    (batch,) = beside(model, [text_batch(2, 1)], [text_batch(2, 3)])
    assert len(batch["input_ids"]) == 2


def test_the_decoder_alone_leaves_text_out_where_any_process_draws(model: VARGPT) -> None:
    (batch,) = beside(model, [drawn_batch(2)], [text_batch(2, 3)], decoder_alone=True)
    assert batch[SHARE].step.text == 0 and "drawn_indices" in batch


def test_a_step_whose_last_batches_pass_by_what_earlier_ones_trained_is_noticed(model: VARGPT) -> None:
    """Gradients that wait for the last batch's exchange would never be exchanged."""
    pairs = [([text_batch(1, 2), text_batch(1, 2)], True), ([drawn_batch(1), text_batch(1, 2)], False)]
    for batches, covered in pairs:
        found = beside(model, [dict(batch) for batch in batches], [dict(batch) for batch in batches], accumulate=2)
        assert {batch[SHARE].covered for batch in found} == {covered}


def test_processes_draw_together_what_one_would_have_drawn() -> None:
    def stream() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    device = torch.device("cpu")
    every = torch.rand(7, generator=stream())
    parts = [
        RankInvariantRng(0, 3, 4, stream()),
        RankInvariantRng(3, 0, 4, stream()),
        RankInvariantRng(3, 4, 0, stream()),
    ]
    assert torch.equal(torch.cat([part.rand(part.own, device) for part in parts]), every)
    assert torch.equal(parts[1].rand(1, device), torch.ones(1)), "an idle picture drops nothing"


def test_a_later_process_goes_on_where_the_first_ones_stream_stands(stage_data: StageData) -> None:
    """The first one has drawn for the codebook before it draws for its pictures."""
    module = VARGPTModule(tiny_model(), tiny_stage("tokenizer"), 4)
    module._trainer = SimpleNamespace(global_rank=1)  # type: ignore[assignment]
    own, every = Counts(rows=2, drawn_pixels=2), Counts(rows=5, drawn_pixels=5)
    share = Share(own, every, Counts(rows=3, drawn_pixels=3), every, 2, True)
    module.seed_rows(5)
    first = torch.Generator().manual_seed(5)
    before = torch.get_rng_state()
    with module.as_first_process():
        assert torch.equal(torch.rand(4), torch.rand(4, generator=first))
    assert torch.equal(torch.get_rng_state(), before)
    device = torch.device("cpu")
    assert torch.equal(module.draws(share).rand(2, device), torch.rand(5, generator=first)[3:])  # type: ignore[union-attr]
    fresh = torch.rand(5, generator=torch.Generator().manual_seed(5))
    assert torch.equal(module.draws(share).rand(2, device), fresh[3:])  # type: ignore[union-attr]
