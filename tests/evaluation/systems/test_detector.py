"""Detectors of transformers as tiny random models, and Mask2Former's objects worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from vargpt_lightning.evaluation.systems.detector import TransformersDetector, instances
from vargpt_lightning.utils.errors import UserError


def tiny_detr(folder: Path) -> Path:
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], out_features=["stage2"])
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5}
    labels = {"id2label": {0: "cat", 1: "dog"}}
    config = DetrConfig(use_timm_backbone=False, backbone=None, backbone_config=backbone, **labels, **sizes, **heads)
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_mask2former(folder: Path) -> Path:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    stages = [f"stage{number}" for number in range(1, 5)]
    swin = {"image_size": 32, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2}
    widths = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    sizes = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 2}
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(out_features=stages, **swin),
        num_attention_heads=2,
        num_queries=4,
        id2label={0: "cat", 1: "dog"},
        **widths,
        **sizes,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 192}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("write", "kind", "count"), [(tiny_detr, "detr", 5), (tiny_mask2former, "mask2former", 8)])
def test_a_detector_gives_the_same_alone_and_in_a_batch(
    write: Callable[[Path], Path], kind: str, count: int, tmp_path: Path
) -> None:
    detector = TransformersDetector(write(tmp_path / kind), "cpu")
    pictures = [Image.new("RGB", (40, 24), "red"), Image.new("RGB", (24, 24), "blue")]
    both = detector.detect(["a", "b"], pictures)
    assert [len(found) for found in both] == [count, count]
    shapes = [None if found[0].mask is None else found[0].mask.shape for found in both]
    assert shapes == ([None, None] if kind == "detr" else [(24, 40), (24, 24)])
    alone = [detector.detect([id_], [picture])[0] for id_, picture in zip("ab", pictures, strict=True)]
    for one, other in zip(both, alone, strict=True):
        assert [each.label for each in one] == [each.label for each in other]
        torch.testing.assert_close(*(torch.tensor([each.score for each in those]) for those in (one, other)))
        torch.testing.assert_close(*(torch.tensor([each.box for each in those]) for those in (one, other)))
        assert {each.label for each in one} <= {"cat", "dog"} and one[0].score >= one[-1].score
    assert detector.settings["kind"] == kind and len(detector.digest) > 8


def test_masks_become_boxes_and_scores() -> None:
    masks_QHW = torch.full((2, 4, 4), -9.0)
    masks_QHW[0, 1:3, 0:2] = 9.0
    classes_QC = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 9.0]])  # the last class is nothing
    scores_K, labels_K, boxes_K4, masks_KHW = instances(classes_QC, masks_QHW, (4, 4))
    best = int(scores_K.argmax())
    assert labels_K[best] == 0 and boxes_K4[best].tolist() == [0, 1, 2, 3] and int(masks_KHW[best].sum()) == 4
    likely = classes_QC[0].softmax(dim=-1)[0]
    torch.testing.assert_close(scores_K[best], likely * torch.tensor(9.0).sigmoid(), rtol=1e-5, atol=0)
    empty = [place for place in range(4) if int(masks_KHW[place].sum()) == 0]
    assert len(empty) == 2 and all(boxes_K4[place].tolist() == [0, 0, 0, 0] for place in empty)
    assert instances(classes_QC, masks_QHW, (8, 8))[2][best].tolist() == [0, 2, 4, 6]


def test_what_detects_nothing_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_embd=8, n_layer=1, n_head=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no detector of transformers"):
        TransformersDetector(tmp_path, "cpu")
