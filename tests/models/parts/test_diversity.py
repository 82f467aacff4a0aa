"""Parts for diversity and choice: temperatures that reach their targets, and candidates that a scorer chooses among."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models.parts.drawing import PROMPT, Others, plain, read, steered, tiny
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.images import to_images
from vargpt_lightning.models.parts.diversear import temperatures
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return tiny()


def test_the_mean_largest_chance_is_the_target() -> None:
    logits_RlV = 6 * torch.randn(3, 9, 40, generator=torch.Generator().manual_seed(0))
    heat_R = temperatures(logits_RlV, 0.6)
    peaks_R = (logits_RlV / heat_R[:, None, None]).softmax(-1).amax(-1).mean(-1)
    torch.testing.assert_close(peaks_R, torch.full((3,), 0.6), rtol=0, atol=1e-4)
    assert (heat_R > 1).all()


def test_of_bits_the_mean_is_over_the_two_values_of_each() -> None:
    logits_RlV = 3 * torch.randn(3, 9, 2 * 12, generator=torch.Generator().manual_seed(0))
    heat_R = temperatures(logits_RlV, 0.65, bits=True)
    peaks_R = (logits_RlV / heat_R[:, None, None]).view(3, 9, 12, 2).softmax(-1).amax(-1).mean((1, 2))
    torch.testing.assert_close(peaks_R, torch.full((3,), 0.65), rtol=0, atol=1e-4)


def test_what_is_unsure_already_is_left_and_what_is_too_sure_is_as_hot_as_may_be() -> None:
    flat, sharp = torch.zeros(1, 4, 10), torch.zeros(1, 4, 10)
    sharp[..., 0] = 1000
    assert temperatures(torch.cat((flat, sharp)), 0.5).tolist() == pytest.approx([1, 8], abs=1e-3)


def test_scales_behind_the_targets_are_left_as_they_are(model: VARGPT) -> None:
    found, without = steered(model, {"diversear": {"targets": [0.1]}}).drawing, plain(model)
    assert found.logits_BLV is not None and without.logits_BLV is not None
    assert not torch.equal(found.logits_BLV[:, :1], without.logits_BLV[:, :1])
    with pytest.raises(UserError, match=r"diversear.targets: got 5, expected at most one a scale, 4"):
        model.sampling_settings(parts={"diversear": {"targets": [0.5] * 5}})
    assert SamplingSettings(parts={"diversear": {}}).parts == {"diversear": {}}


class Brightness:
    """A scorer that likes bright pictures, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.requests: set[str] = set()

    def __call__(self, pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[float]:
        self.asked.append(len(pictures))
        self.requests |= set(requests)
        return [float(np.asarray(picture).mean()) for picture in pictures]


def bright(model: VARGPT, f_hat: torch.Tensor) -> list[float]:
    return Brightness()(to_images(model.image_tokenizer.decode(f_hat)), [])


def test_the_best_of_several_goes_on(model: VARGPT) -> None:
    judge = Brightness()
    found = steered(model, {"best_of": {"scorer": "bright", "candidates_each": 5}}, sources=Others(bright=judge))
    assert judge.asked == [10] and judge.requests == {"a request"}
    assert found.drawing.idx_BL.shape == (2, 30)
    plainly = bright(model, plain(model).f_hat_BCHW)
    best = bright(model, found.drawing.f_hat_BCHW)
    assert all(new >= old for new, old in zip(best, plainly, strict=True)) and best != plainly
    torch.testing.assert_close(
        found.drawing.f_hat_BCHW, model.image_tokenizer.f_hat_per_scale(found.drawing.idx_BL)[-1]
    )


def test_a_row_s_candidates_are_its_own(model: VARGPT) -> None:
    parts = {"best_of": {"scorer": "bright", "candidates_each": 3}}
    together = steered(model, parts, sources=Others(bright=Brightness())).drawing
    alone = steered(model, parts, seeds=(4,), sources=Others(bright=Brightness())).drawing
    assert torch.equal(together.idx_BL[1:], alone.idx_BL)


BESIDE = [{}, {"guided_scales": {"stop": 2}}, {"spatial": {}, "fastvar": {"ratios": [0, 0, 0, 0.5]}}, {"certainty": {}}]


@pytest.mark.parametrize("more", BESIDE)
def test_candidates_are_drawn_again_between_scales(model: VARGPT, more: Any) -> None:
    judge = Brightness()
    best_of = {"scorer": "bright", "candidates_each": 3, "resample": [1], "sharpness": 1e6}
    found = steered(model, {"best_of": best_of, **more}, sources=Others(bright=judge)).drawing
    assert judge.asked == [6, 6]
    torch.testing.assert_close(found.f_hat_BCHW, model.image_tokenizer.f_hat_per_scale(found.idx_BL)[-1])
    with pytest.raises(UserError, match=r"best_of.resample: got 3, expected scales before the last, 0 to 2"):
        model.sampling_settings(parts={"best_of": {"scorer": "bright", "resample": [3]}})


def test_the_cache_holds_the_chosen_picture(model: VARGPT) -> None:
    """What the language model then sees are the codes of the candidate that went on."""
    from tests.models.cases import DRAWN, make_batch
    from vargpt_lightning.models.core.masks import find_pictures

    cache = read(model, 2)
    best_of = {"scorer": "bright", "candidates_each": 4}
    found = steered(model, {"best_of": best_of}, sources=Others(bright=Brightness()), cache=cache)
    forced = read(model, 2)
    batch = {**make_batch([[*PROMPT, *DRAWN]] * 2), "drawn_indices": found.drawing.idx_BL}
    with torch.no_grad():
        layout = find_pictures(batch["input_ids"], model.tokens, 30)
        drawn = model.drawn_pictures(batch)
        embeds = model.embed(batch, layout, drawn)[:, 4:35]
        mask = model.training_mask(batch, layout, drawn)[:, :, 4:35, :35]
        forced.run(embeds, torch.arange(4, 35).expand(2, -1), mask)
    torch.testing.assert_close(cache.keys_LBHSD[..., :35, :], forced.keys_LBHSD[..., :35, :], rtol=0, atol=1e-4)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(model: VARGPT, wrong: float) -> None:
    sources = Others(broken=lambda pictures, requests: [wrong] * len(pictures))
    with pytest.raises(UserError, match=rf"best_of: the scorer 'broken' gave {wrong}, expected a number for each of 8"):
        steered(model, {"best_of": {"scorer": "broken"}}, sources=sources)
