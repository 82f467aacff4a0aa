"""What a drawing attends to: the weights of the pass that gives the logits, with the mask, with the cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.cases import DRAWN, IDS, SCALE_OF, make_batch, random_codes, small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.generation.attention_maps import drawing_attention, recorded_attention
from vargpt_lightning.models.generation.drawing import draw_pictures
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.utils.errors import UserError

WORDS = [1, 11, 12, 13, 14]
CONTEXT = [*WORDS, IDS.image_gen_start]
L = 30


@pytest.fixture(scope="module")
def model() -> VARGPT:
    return small_model()


def drawn_with_cache(model: VARGPT) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, logits, and the weights (N, H, L, T) of a drawing that was made scale by scale."""
    cache = LanguageCache(model.language_model, 1, 60)
    ids_1T = torch.tensor([WORDS])
    slots_1T = torch.arange(len(WORDS))[None]
    with torch.no_grad():
        cache.run(model.language_model.model.embed_tokens(ids_1T), slots_1T, step_mask(slots_1T, len(WORDS)))
    settings = model.sampling_settings(cfg=0.0, greedy=True)
    with recorded_attention(model.language_model) as passes:
        drawing = draw_pictures(model, cache, [0], [len(WORDS)], settings, keep_logits=True)
    assert drawing.logits_BLV is not None
    depth = len(model.language_model.model.layers)
    weights_NHLT = torch.zeros(depth, 4, L, len(CONTEXT) + L)
    for number, weights_1HnS in enumerate(passes):
        k, layer = divmod(number, depth)
        new_HnS = weights_1HnS[0, :, 1:] if k == 0 else weights_1HnS[0]  # the start token goes with the first scale
        part = model.schedule.slices[k]
        weights_NHLT[layer, :, part, : new_HnS.shape[-1]] = new_HnS
    return drawing.idx_BL[0], drawing.logits_BLV[0], weights_NHLT


@pytest.mark.parametrize("attention", ["block_causal", "causal"])
def test_one_pass_sees_what_was_seen_scale_by_scale(attention: str) -> None:
    model = small_model(visual_attention=attention)
    codes_L, logits_LV, weights_NHLT = drawn_with_cache(model)
    found = drawing_attention(model, CONTEXT, codes_L)
    torch.testing.assert_close(found.weights_NHLT, weights_NHLT, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits_LV, logits_LV, rtol=0, atol=1e-4)


def test_the_weights_add_up_and_keep_to_the_mask(model: VARGPT) -> None:
    found = drawing_attention(model, CONTEXT, random_codes(1)[0])
    assert found.weights_NHLT.shape == (2, 4, L, len(CONTEXT) + L)
    torch.testing.assert_close(found.weights_NHLT.sum(-1), torch.ones(2, 4, L))
    within_NHLL = found.weights_NHLT[..., len(CONTEXT) :]
    scale_L = torch.tensor(SCALE_OF)
    later_LL = scale_L[None] > scale_L[:, None]
    assert float(within_NHLL[..., later_LL].abs().max()) == 0.0
    assert float(within_NHLL[..., ~later_LL].min()) > 0.0, "its own scale and all before it are seen, whole"


def test_the_logits_are_the_training_forwards(model: VARGPT) -> None:
    codes_1L = random_codes(1)
    batch = {**make_batch([[*WORDS, *DRAWN]]), "drawn_indices": codes_1L}
    with torch.no_grad():
        expected = model(batch).image_logits
    torch.testing.assert_close(drawing_attention(model, CONTEXT, codes_1L[0]).logits_LV, expected[0], rtol=0, atol=1e-5)


def test_the_kernel_is_put_back_whatever_happens(model: VARGPT) -> None:
    language = model.language_model
    before = language.kernel
    with pytest.raises(RuntimeError), recorded_attention(language) as found:
        assert language.kernel == "eager"
        raise RuntimeError
    assert language.kernel == before != "eager"
    model(make_batch([WORDS]))
    assert found == [], "nothing is recorded any more"


def test_what_is_no_context_of_a_drawing_is_refused(model: VARGPT) -> None:
    codes_L = random_codes(1)[0]
    for context in ([], WORDS, [IDS.image, *CONTEXT], [*DRAWN, *CONTEXT]):
        with pytest.raises(UserError, match="end with the start token"):
            drawing_attention(model, context, codes_L)
    with pytest.raises(UserError, match=r"got shape \(7,\), expected 30 tokens"):
        drawing_attention(model, CONTEXT, codes_L[:7])
