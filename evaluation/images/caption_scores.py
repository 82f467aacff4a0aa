"""Pictures measured against their captions, by a CLIP of open_clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vargpt_lightning.data.images.pictures import PictureError, decode_picture
from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.templates import Written
from vargpt_lightning.evaluation.features import clip
from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores


def caption_scores(
    name: str, weights: str, root: Path, quick_gelu: bool | None = None
) -> Callable[[Caption, Written], float | None]:
    """Return what gives 100 x cosine of a caption and its picture below `root`; None where that cannot be read.

    Args:
        name: of the model.
        weights: a file of open_clip.
        quick_gelu: the weights' activation, if their name does not say it.
    """
    said: dict[str, Any] = {} if quick_gelu is None else {"quick_gelu": quick_gelu}
    model = clip.open_clip_model(name, weights, **said)
    root = root.resolve()

    def measure(caption: Caption, written: Written) -> float | None:
        file = (root / caption.picture).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        try:
            picture = decode_picture(file.read_bytes(), caption.picture)
        except PictureError:
            return None
        return float(cosine_scores(model.pictures([picture]), model.texts([caption.text])[0])[0])

    return measure
