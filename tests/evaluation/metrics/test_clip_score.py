"""The CLIP score of tensors equals the command's of their files, open_clip's, and torchmetrics' for the same model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.multimodal.clip_score import CLIPScore as TheirScore

from tests.evaluation.pictures import write_open_clip, write_pictures, write_transformers_clip
from vargpt_lightning.evaluation.features.clip import open_clip_model, transformers_clip
from vargpt_lightning.evaluation.images.clip_score import score_pairs, summary
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.evaluation.metrics import CLIPScore
from vargpt_lightning.utils.errors import UserError

WORDS = ["a red cat", "a dog", "the sea", "two birds on a tree with far more words than the text tower can take", "z"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[PictureFile]:
    return write_pictures(tmp_path_factory.mktemp("drawn"), len(WORDS), size=32)


@pytest.fixture(scope="module")
def pictures(files: list[PictureFile]) -> torch.Tensor:
    arrays = [np.array(Image.open(file.path)) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def test_figures_equal_the_commands(files: list[PictureFile], pictures: torch.Tensor, tmp_path: Path) -> None:
    name, weights = write_open_clip(tmp_path / "clip")
    model = open_clip_model(name, str(weights))
    prompts = [Prompt(str(number), "", words) for number, words in enumerate(WORDS)]
    rows = score_pairs(model, prompts, files, tmp_path / "w", batch_size=3)
    metric = CLIPScore(model)
    for start in (0, 3):
        batch = metric(pictures[start : start + 3], WORDS[start : start + 3])
        mean = sum(row["clip"] for row in rows[start : start + 3]) / len(rows[start : start + 3])
        assert batch.item() == pytest.approx(mean, rel=1e-9), "a batch's own mean"
    assert metric.compute_all() == summary(rows), "bit by bit: the batches were the same"
    assert metric.compute().item() == summary(rows)["clip"] and summary(rows)["clip_truncated"] == 1
    backwards = CLIPScore(model)
    backwards.update(pictures[3:].flip(0).float() / 255, WORDS[3:][::-1])
    backwards.update(pictures[:3], WORDS[:3])
    assert backwards.compute().item() == pytest.approx(metric.compute().item(), rel=1e-6)
    metric.reset()
    with pytest.raises(UserError, match="no drawing has a CLIP score"):
        metric.compute_all()
    with pytest.raises(UserError, match="5 pictures with 2 texts"):
        metric.update(pictures, WORDS[:2])


def test_scores_equal_torchmetrics(pictures: torch.Tensor, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    class Tensors(CLIPModel):
        """Gives tensors, as torchmetrics expects them: transformers 5 gives objects."""

        def get_image_features(self, *arguments: Any, **settings: Any) -> torch.Tensor:
            return super().get_image_features(*arguments, **settings).pooler_output

        def get_text_features(self, *arguments: Any, **settings: Any) -> torch.Tensor:
            return super().get_text_features(*arguments, **settings).pooler_output

    words = ["a cat", "a dog", "sea", "two", "z"]
    folder = write_transformers_clip(tmp_path / "clip")
    own = Tensors.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    ours, theirs = CLIPScore(transformers_clip(str(folder))), TheirScore(model_name_or_path=lambda: own)
    ours.update(pictures, words)
    theirs.update(pictures, words)
    assert ours.compute().item() == pytest.approx(theirs.compute().item(), abs=1e-3)


class Signs:
    """Embeds dark pictures against all words, and bright ones along them."""

    settings: ClassVar[dict[str, Any]] = {}

    def pictures(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        return torch.tensor([[np.asarray(picture).mean() - 128.0, 0.0] for picture in pictures])

    def texts(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        return torch.tensor([[1.0, 0.0]] * len(texts)), [False] * len(texts)


@pytest.mark.parametrize(("clamp", "wanted"), [("none", 0.0), ("each", 50.0)])
def test_negative_scores_are_clamped_where_asked(clamp: str, wanted: float) -> None:
    metric = CLIPScore(Signs(), clamp=clamp, value_range=(-1.0, 1.0))
    metric.update(torch.stack([torch.full((3, 4, 4), -1.0), torch.ones(3, 4, 4)]), ["a", "b"])
    assert metric.compute().item() == pytest.approx(wanted)
