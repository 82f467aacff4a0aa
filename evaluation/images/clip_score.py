"""CLIP score: 100 x cosine of a drawing and the words that it should show (Hessel et al., 2021, without their weight).

Any model of open_clip with any weights (ViT-L/14 of OpenAI by default), or a CLIP directory of transformers. Scores of
different models do not compare: the name of model and weights goes into every result.

Shapes: B pairs, D embedding channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.features.clip import SCALE, ClipModel
from vargpt_lightning.evaluation.features.finite import check_rows
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, read_jsonl

CLAMPS = ("none", "each")
"""What happens to negative scores: nothing, or each becomes 0."""

Progress = Callable[[str, int, int], None]


def cosine_scores(pictures_BD: Tensor, texts_BD: Tensor, clamp: str = "none") -> Tensor:
    """100 x cosine of each picture with the text at the same place, (B,) float64; `clamp` is one of CLAMPS."""
    if clamp not in CLAMPS:
        raise UserError(f"clamp {clamp!r}; expected one of {', '.join(CLAMPS)}")
    unit = [torch.nn.functional.normalize(side_BD.double(), dim=-1) for side_BD in (pictures_BD, texts_BD)]
    scores_B = SCALE * (unit[0] * unit[1]).sum(dim=-1)
    return scores_B.clamp(min=0) if clamp == "each" else scores_B


def score_pairs(
    model: ClipModel,
    prompts: Sequence[Prompt],
    drawings: Sequence[PictureFile],
    folder: Path,
    *,
    text: str = "caption",
    clamp: str = "none",
    batch_size: int = 64,
    allow: Collection[str] = (),
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Scores every drawing with its prompt and returns rows of id, clip (None: broken) and truncated, in order.

    Rows are appended to `folder` as they come: a run that was killed resumes, with any number of processes.

    Raises:
        UserError: prompts and drawings of different ids, a prompt without the text, a picture that does not decode
            unless "broken" is allowed.
    """
    processes = processes or Processes()
    if [prompt.id for prompt in prompts] != [drawing.id for drawing in drawings]:
        raise UserError("prompts and drawings differ in their ids or order; pair them by id first")
    stamps = [drawing.path.stat() for drawing in drawings]
    keys = [
        short_hash(prompt.id, prompt.text(text), stamp.st_size, stamp.st_mtime_ns, model.settings, clamp, batch_size)
        for prompt, stamp in zip(prompts, stamps, strict=True)
    ]
    found = _rows(folder)
    processes.wait()  # nobody writes before all have read
    starts = processes.share(range(0, len(prompts), batch_size))
    for done, start in enumerate(starts):
        if progress is not None:
            progress("CLIP score", done, len(starts))
        places = range(start, min(start + batch_size, len(prompts)))
        if any(keys[place] not in found for place in places):
            rows = _score_batch(model, [(prompts[p], drawings[p], keys[p]) for p in places], text, clamp, allow)
            append_jsonl(folder / f"{processes.rank}-of-{processes.world}.jsonl", rows)
    if progress is not None:
        progress("CLIP score", len(starts), len(starts))
    processes.wait()
    found = _rows(folder)
    return [found[key] for key in keys]


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    rows = (row for file in sorted(folder.glob("*.jsonl")) for row in read_jsonl(file))
    return {row["key"]: row for row in rows if {"key", "id", "clip", "truncated"} <= row.keys()}


def _score_batch(
    model: ClipModel,
    batch: Sequence[tuple[Prompt, PictureFile, str]],
    text: str,
    clamp: str,
    allow: Collection[str],
) -> Iterator[dict[str, Any]]:
    pictures = [_open(drawing.path, "broken" in allow) for _, drawing, _ in batch]
    good = [place for place, picture in enumerate(pictures) if picture is not None]
    texts_BD, cut = model.texts([prompt.text(text) for prompt, _, _ in batch])
    scores: dict[int, float] = {}
    if good:
        pictures_BD = model.pictures([picture for picture in pictures if picture is not None])
        check_rows(pictures_BD, [batch[place][1].path for place in good], "CLIP")
        check_rows(texts_BD, [f"prompt {prompt.id!r}" for prompt, _, _ in batch], "CLIP")
        scores = dict(zip(good, cosine_scores(pictures_BD, texts_BD[good], clamp).tolist(), strict=True))
    for place, (prompt, _, key) in enumerate(batch):
        yield {"id": prompt.id, "key": key, "clip": scores.get(place), "truncated": cut[place]}


def _open(path: Path, skip: bool) -> Image.Image | None:
    """The picture as training reads it: upright, 16 bits scaled to 8, what is transparent white."""
    try:
        return decode_picture(path.read_bytes(), str(path))
    except (PictureError, OSError) as error:
        if skip:
            return None
        raise UserError(f"{path}: does not decode ({error}); mend it, or add --allow broken") from error


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean, its standard error, the count, and how many texts were cut, of rows with `clip` and `truncated`."""
    scores = [float(row["clip"]) for row in rows if row["clip"] is not None]
    if not scores:
        raise UserError("no drawing has a CLIP score; expected some that decode")
    mean = math.fsum(scores) / len(scores)
    squares = math.fsum((score - mean) ** 2 for score in scores)
    error = math.sqrt(squares / (len(scores) - 1) / len(scores)) if len(scores) > 1 else math.nan
    cut = sum(bool(row["truncated"]) for row in rows if row["clip"] is not None)
    return {"clip": mean, "clip_error": error, "clip_n": len(scores), "clip_truncated": cut}
