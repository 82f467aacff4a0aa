"""Scores of drawings with their words by models that look at both, kept on the disk: killed, the command resumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.base.pairs import PairScorer
from vargpt_lightning.evaluation.harness.outputs import Output, OutputLog
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.evaluation.images.settings import PAIRED, WORK, Measurement
from vargpt_lightning.evaluation.metrics.pair_score import PairScore
from vargpt_lightning.utils.errors import UserError

Pair = tuple[Prompt, PictureFile, str]


def score_kinds(work: Measurement) -> dict[str, dict[str, float | None]]:
    """Scores by kind and id, None of broken pictures; the means go into the measurement.

    Raises:
        UserError: a model is missing or does not work here, a picture does not decode unless "broken" is allowed.
    """
    weights = _weights(work.settings.pair_weights)
    found = {}
    for kind in (name for name in PAIRED if work.wants(name)):
        scorer = _open(kind, work, weights.get(kind))
        found[kind] = _score(work, scorer)
        values = [value for value in found[kind].values() if value is not None]
        metric = PairScore(scorer, sync_on_compute=False)  # the scores are of all processes already
        metric.add(values)
        work.metrics |= metric.compute_all()
        work.facts[kind] = {**scorer.settings, "text": work.settings.clip_text}
        if broken := len(found[kind]) - len(values):
            work.marks.append(f"broken: {broken} drawings without a {kind}")
        work.n = len(values)
    return found


def _weights(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, _, path in pairs:
        if name not in PAIRED or not path:
            raise UserError(f"--pair-weights {name}: expected NAME=PATH, the name one of {', '.join(PAIRED[1:])}")
    return {name: path for name, _, path in pairs}


def _open(kind: str, work: Measurement, weights: str | None) -> PairScorer:
    from vargpt_lightning.evaluation.systems.open import open_system
    from vargpt_lightning.evaluation.systems.pair_scorers import OPEN, VQAScorer

    device = work.settings.device
    if kind == VQAScorer.kind:
        if not work.settings.vqa_model:
            raise UserError("vqa_score: nobody to ask; expected --vqa-model, such as a transformers model")
        return VQAScorer(open_system(work.settings.vqa_model, device=device))
    return OPEN[kind](device=device) if weights is None else OPEN[kind](weights, device=device)


def _score(work: Measurement, scorer: PairScorer) -> dict[str, float | None]:
    log = OutputLog(work.out / WORK / scorer.kind, work.processes.rank)
    pairs = [_pair(work, scorer, *each) for each in zip(work.prompts, work.drawings, strict=True)]
    before = log.read({key for _, _, key in pairs})
    work.processes.wait()  # nobody writes before all have read
    left = work.processes.share([pair for pair in pairs if pair[2] not in before])
    size = work.settings.batch_size
    for start in range(0, len(left), size):
        if work.progress is not None:
            work.progress(scorer.kind, start, len(left))
        log.append(_batch(work, scorer, left[start : start + size]))
    if work.progress is not None:
        work.progress(scorer.kind, len(left), len(left))
    work.processes.wait()
    outputs = log.read({key for _, _, key in pairs})
    return {prompt.id: float(outputs[key].output) if outputs[key].output else None for prompt, _, key in pairs}


def _pair(work: Measurement, scorer: PairScorer, prompt: Prompt, drawing: PictureFile) -> Pair:
    stamp = drawing.path.stat()
    text = prompt.text(work.settings.clip_text)
    return prompt, drawing, short_hash(prompt.id, text, stamp.st_size, stamp.st_mtime_ns, scorer.settings)


def _batch(work: Measurement, scorer: PairScorer, pairs: Sequence[Pair]) -> list[Output]:
    pictures = [_picture(drawing, "broken" in work.settings.allow) for _, drawing, _ in pairs]
    good = [place for place, picture in enumerate(pictures) if picture is not None]
    texts = [pairs[place][0].text(work.settings.clip_text) for place in good]
    values = scorer.scores([picture for picture in pictures if picture is not None], texts) if good else []
    scored: dict[int, Any] = dict(zip(good, values, strict=True))
    for place, value in scored.items():
        if not math.isfinite(value):
            raise UserError(f"{scorer.kind} of {pairs[place][1].path} is {value}; expected a number")
    return [
        Output(prompt.id, key, "", repr(float(scored[place])) if place in scored else "")
        for place, (prompt, _, key) in enumerate(pairs)
    ]


def _picture(drawing: PictureFile, skip: bool) -> Image.Image | None:
    """The picture as training reads it; None of one that does not decode, where that is allowed."""
    try:
        return decode_picture(drawing.path.read_bytes(), str(drawing.path))
    except (PictureError, OSError) as error:
        if skip:
            return None
        raise UserError(f"{drawing.path}: does not decode ({error}); mend it, or add --allow broken") from error
