"""What is measured on drawings and how: names, settings, and a measurement on its way. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import ALLOWED, PictureFile
from vargpt_lightning.utils.errors import UserError, meant

if TYPE_CHECKING:  # the command's help must not wait for torch
    from vargpt_lightning.evaluation.features.feature_sums import Moments

PAIRED = ("vqa_score", "pickscore", "image_reward", "hpsv3")  # a drawing with its words, by a model of its own
METRICS = ("fid", "sfid", "kid", "isc", "prc", "dc", "prc_vgg16", "fd_dinov2", "cmmd", "mind", "clip", *PAIRED)
ON_INCEPTION = ("fid", "sfid", "kid", "isc", "prc", "dc")
TWO_SIDED = ("fid", "sfid", "kid", "prc", "dc", "prc_vgg16", "fd_dinov2", "cmmd")
ON_PICTURES = (
    "sfid",
    "kid",
    "prc",
    "dc",
    "prc_vgg16",
    "fd_dinov2",
    "cmmd",
)  # saved statistics of FID are not enough for these
PACKAGES = ("vargpt-lightning", "torch", "torchvision", "torch-fidelity", "open-clip-torch", "transformers", "pillow")
VARIANTS = ("torch_fidelity", "clean", "adm")
WORK, RESULT, SAMPLES = ".work", "images.json", "samples.jsonl"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured and how; all of it goes into the result.

    Raises UserError for a name that is not known.
    """

    metrics: tuple[str, ...] = ("fid", "isc", "clip")
    variant: str = "torch_fidelity"
    layer: str = "2048"
    inception_weights: Path | None = None
    vgg16_weights: Path | None = None
    clip_library: str = "open_clip"
    clip_model: str = "ViT-L-14"
    clip_weights: str = "openai"
    clip_quick_gelu: bool | None = None
    clip_text: str = "caption"
    clip_clamp: str = "none"
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    isc_splits: int = 10
    prc_neighbours: int = 3
    dc_neighbours: int = 5
    vqa_model: str = ""
    pair_weights: tuple[str, ...] = ()
    resize_and_crop: int | None = None
    batch_size: int = 64
    device: str = "cpu"
    layout: str = "contiguous"
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, given, known in (("metric", self.metrics, METRICS), ("allowance", self.allow, tuple(ALLOWED))):
            for name in given:
                if name not in known:
                    raise UserError(f"{what} {name!r}; expected some of {', '.join(known)}{meant(name, known)}")
        if self.variant not in VARIANTS:
            raise UserError(
                f"variant {self.variant!r}; expected one of {', '.join(VARIANTS)}{meant(self.variant, VARIANTS)}"
            )
        if self.clip_library not in ("open_clip", "transformers"):
            raise UserError(f"CLIP library {self.clip_library!r}; expected open_clip or transformers")
        if self.batch_size < 1:
            raise UserError(f"batch size {self.batch_size}; expected 1 or more")


@dataclass
class Measurement:
    """One measurement on its way."""

    settings: MeasureSettings
    out: Path
    processes: Processes
    progress: Progress | None
    drawings: list[PictureFile]
    prompts: list[Prompt]
    source: str = ""
    real: list[PictureFile] = field(default_factory=list)
    real_moments: Moments | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    n: int = 0

    def wants(self, *names: str) -> bool:
        return any(name in self.settings.metrics for name in names)
