"""A detector of transformers, from a local directory or the hub: DETR and its kin, or Mask2Former with masks.

Shapes: Q queries, C classes, K kept objects, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.base.prompt_benchmark import Detection
from vargpt_lightning.evaluation.systems.model_files import files_digest, first_line, locate
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError

MOST = 100  # objects of a picture
MASKED = ("mask2former", "maskformer")


class TransformersDetector:
    """A detector with its processor; implements `Detector`.

    Args:
        model: a local directory or a hub id.
        device: such as cuda:0; None takes a GPU when there is one.

    Raises:
        UserError: there is no such model, it detects nothing, or some of its weights are not there.
    """

    batch_size = 8

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        self.folder = locate(model)
        self.name = str(model).rstrip("/").removeprefix("./")
        self.model, self.processor = _load(self.folder, choose(device))
        self.kind: str = self.model.config.model_type
        self.labels: dict[int, str] = {int(place): name for place, name in self.model.config.id2label.items()}

    @cached_property
    def digest(self) -> str:
        """A hash of the model's files."""
        return files_digest(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """All that detections depend on besides the files."""
        versions = package_versions(("torch", "transformers"))
        return {"adapter": "transformers detector", "kind": self.kind, **versions}

    @torch.inference_mode()
    def detect(self, ids: Sequence[str], pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """The objects in each picture, at most 100, whatever their score."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, picture in enumerate(pictures):
            by_size.setdefault(picture.size, []).append(place)
        found: dict[int, list[Detection]] = {}
        for places in by_size.values():  # pictures of other sizes would be padded, and masks cover the padding
            found |= zip(places, self._detected([pictures[place] for place in places]), strict=True)
        return [found[place] for place in range(len(pictures))]

    def _detected(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.model.device)
        output = self.model(**inputs)
        sizes = [(picture.height, picture.width) for picture in pictures]
        if self.kind in MASKED:
            both = zip(output.class_queries_logits, output.masks_queries_logits, sizes, strict=True)
            return [self._objects(*instances(*each)) for each in both]
        found = self.processor.post_process_object_detection(output, threshold=0.0, target_sizes=sizes)
        return [self._objects(each["scores"], each["labels"], each["boxes"], None) for each in found]

    def _objects(
        self, scores_K: Tensor, labels_K: Tensor, boxes_K4: Tensor, masks_KHW: Tensor | None
    ) -> list[Detection]:
        best = scores_K.topk(min(MOST, len(scores_K))).indices.tolist()
        return [
            Detection(
                self.labels[int(labels_K[place])],
                float(scores_K[place]),
                _corners(boxes_K4[place].tolist()),
                mask=None if masks_KHW is None else masks_KHW[place].cpu().numpy(),
            )
            for place in best
        ]


def instances(classes_QC: Tensor, masks_QHW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, classes, boxes and masks of the likeliest pairs of query and class, as Mask2Former's authors have them.

    A score is the class's probability times the mean probability of the mask's own pixels; the last class is nothing.

    Source: Cheng et al., arXiv 2112.01527, instance_inference of github.com/facebookresearch/Mask2Former.
    """
    likely_QC = classes_QC.softmax(dim=-1)[:, :-1]
    count = likely_QC.shape[1]
    scores_K, places_K = likely_QC.flatten().topk(min(MOST, likely_QC.numel()))
    logits_QHW = torch.nn.functional.interpolate(masks_QHW[None], size, mode="bilinear", align_corners=False)[0]
    logits_KHW = logits_QHW[places_K // count]
    masks_KHW = logits_KHW > 0
    sure_K = (logits_KHW.sigmoid() * masks_KHW).sum(dim=(1, 2)) / (masks_KHW.sum(dim=(1, 2)) + 1e-6)
    boxes_K4 = torch.stack([_box(mask_HW) for mask_HW in masks_KHW])
    return scores_K * sure_K, places_K % count, boxes_K4, masks_KHW


def _box(mask_HW: Tensor) -> Tensor:
    """Left, top, right and bottom of a mask's pixels; zeros of an empty one."""
    across, down = mask_HW.any(dim=0).nonzero(), mask_HW.any(dim=1).nonzero()
    if not len(across):
        return torch.zeros(4, device=mask_HW.device)
    corners = (across[0], down[0], across[-1] + 1, down[-1] + 1)
    return torch.cat(corners).float()


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], box[2], box[3]


def _load(folder: Path, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection
    from transformers import AutoModelForUniversalSegmentation as AutoMasked

    try:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True).model_type
        loader: Any = AutoMasked if kind in MASKED else AutoModelForObjectDetection
        model, found = loader.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, trust_remote_code=False
        )
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        raise UserError(f"{folder}: no detector of transformers: {first_line(error)}") from error
    if lost := sorted(found.get("missing_keys") or ()):
        raise UserError(f"{folder}: {len(lost)} weights are not in its files, such as {lost[0]}")
    return model.eval().requires_grad_(False).to(device), processor
