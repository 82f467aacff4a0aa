"""CLIP scores of files of drawings, kept on the disk while they are measured: killed, the same command resumes.

Scores of different models do not compare: the name of model and weights goes into every result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.features.clip import ClipModel
from vargpt_lightning.evaluation.features.finite import check_rows
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.evaluation.metrics.clip_score import CLIPScore, cosine_scores
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, read_jsonl

Progress = Callable[[str, int, int], None]


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
    scored = [row for row in rows if row["clip"] is not None]
    metric = CLIPScore(sync_on_compute=False)  # the rows are of all processes already
    metric.add([float(row["clip"]) for row in scored], sum(bool(row["truncated"]) for row in scored))
    return metric.compute_all()
