"""The faster way through CLIP's picture towers ends where the library's own does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vargpt_lightning.evaluation.features import clip_pass

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
TEXT = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}


def made(quick_gelu: bool = False, **vision: Any) -> Any:
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(16, VISION | vision, TEXT, quick_gelu=quick_gelu).eval()
    for value in model.parameters():  # biases begin at 0, which would hide one that is left out
        torch.nn.init.normal_(value, std=0.1) if value.ndim == 1 else None
    return model


@torch.inference_mode()
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_embeddings_are_the_librarys_up_to_rounding(quick_gelu: bool, count: int) -> None:
    model = made(quick_gelu)
    assert clip_pass.known(model)
    pictures = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = pictures.clone()
    expected, found = model.encode_image(pictures), clip_pass.embed(model.visual, pictures)
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-6
    assert torch.equal(pictures, before)
    twice = clip_pass.embed(model.visual, pictures)
    assert torch.equal(found, twice), "no weight is written to"


@torch.inference_mode()
def test_a_tower_of_one_block() -> None:
    model = made(layers=1)
    pictures = torch.randn(3, 3, 32, 32)
    assert torch.allclose(clip_pass.embed(model.visual, pictures), model.encode_image(pictures), atol=1e-5)


@pytest.mark.parametrize("other", [{"pool_type": "avg"}, {"attentional_pool": True}, {"ls_init_value": 0.1}])
def test_other_towers_are_left_to_the_library(other: dict[str, Any]) -> None:
    assert not clip_pass.known(made(**other))
