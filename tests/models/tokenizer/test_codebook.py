"""A codebook laid over features: k-means finds what is there, scale by scale."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vargpt_lightning.models.tokenizer.codebook import initialize_codebook, kmeans
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.quantizer import Phi


def tokenizer(**changes: object) -> ImageTokenizer:
    torch.manual_seed(0)
    settings = {"scales": (1, 2, 4), "channels": 8, "channel_multipliers": (1, 2), "residual_blocks": 1}
    return ImageTokenizer(**settings | {"code_size": 4, "vocabulary": 64, "dropout": 0.2} | changes)  # type: ignore[arg-type]


def pictures(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_kmeans_finds_clusters_that_lie_apart() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    rows = means.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2)
    found = kmeans(rows, 12, 10)
    nearest = torch.cdist(means, found).min(1).values
    assert nearest.max() < 0.3
    assert torch.cdist(rows, found).min(1).values.max() < 0.5


def test_kmeans_gives_the_mean_when_there_is_one_centre() -> None:
    rows = torch.randn(30, 3)
    torch.testing.assert_close(kmeans(rows, 1, 1)[0], rows.mean(0))


def test_kmeans_of_few_rows_repeats_them_with_a_little_noise() -> None:
    rows = torch.randn(3, 2)
    found = kmeans(rows, 8, 1)
    assert found.shape == (8, 2) and found.isfinite().all()
    assert len(found.unique(dim=0)) == 8
    assert torch.cdist(rows, found).min(1).values.max() < 0.5


def test_more_iterations_fit_better() -> None:
    rows = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    errors = []
    for iterations in (1, 20):
        torch.manual_seed(0)
        errors.append(float(torch.cdist(rows, kmeans(rows, 20, iterations)).min(1).values.square().mean()))
    assert errors[1] < 0.95 * errors[0]


def test_each_scale_leaves_less_and_the_codes_reconstruct_the_features() -> None:
    subject = tokenizer(vocabulary=512)
    x_B3HW = pictures(64)
    left = initialize_codebook(subject, x_B3HW)
    assert left == sorted(left, reverse=True) and left[-1] < 0.35
    f_BCHW = subject.eval().features(x_B3HW).detach()
    f_hat_BCHW = subject.f_hat_per_scale(subject.quantize_features(f_BCHW))[-1]
    assert float((f_BCHW - f_hat_BCHW).var() / f_BCHW.var()) == pytest.approx(left[-1], rel=0.15)


def test_codes_are_shared_out_by_the_scales_sides() -> None:
    """Scales 1, 2 and 4 bring 9, 18 and 37 of 64 codes; those of the first are means of whole pictures."""
    subject = tokenizer()
    initialize_codebook(subject, pictures(), iterations=3)
    f_BCHW = subject.eval().features(pictures()).detach()
    means_BC = F.interpolate(f_BCHW, (1, 1), mode="area").flatten(1)
    codes_VC = subject.quantize.embedding.weight.detach()
    spread = torch.cdist(means_BC, codes_VC[:9]).min(1).values.mean()
    assert spread < 0.5 * torch.cdist(means_BC, means_BC.mean(0, keepdim=True)).mean()
    assert len(codes_VC.unique(dim=0)) == 64


def test_blends_become_the_identity() -> None:
    subject = tokenizer()
    initialize_codebook(subject, pictures())
    h_BCHW = torch.randn(2, 4, 4, 4)
    blends = [part for part in subject.modules() if isinstance(part, Phi)]
    assert blends
    for blend in blends:
        torch.testing.assert_close(blend(h_BCHW), h_BCHW)


def test_random_numbers_are_the_global_ones_and_the_mode_is_kept() -> None:
    books = []
    for seed in (5, 5, 6):
        subject = tokenizer().train()
        torch.manual_seed(seed)
        initialize_codebook(subject, pictures())
        assert subject.training and subject.encoder.training
        books.append(subject.quantize.embedding.weight.detach().clone())
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])


def test_pictures_are_encoded_in_chunks_without_dropout() -> None:
    """The result does not depend on how many pictures go through the encoder at a time."""
    left = []
    for chunk in (7, 64):
        subject = tokenizer()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vargpt_lightning.models.tokenizer.codebook.CHUNK", chunk)
            torch.manual_seed(0)
            left.append(initialize_codebook(subject, pictures()))
    assert left[0] == pytest.approx(left[1], rel=1e-3)
