"""The evaluation that ends a run: questions, drawings and real pictures of its data, asked of its last model."""

from __future__ import annotations

import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from PIL import Image

from vargpt_lightning.commands.evaluate import Asked, examine, print_figures
from vargpt_lightning.commands.experiment import EvaluationConfig, Experiment
from vargpt_lightning.commands.loading import load_run
from vargpt_lightning.commands.sample_requests import generation_settings
from vargpt_lightning.data.dataset import ShardDataset
from vargpt_lightning.data.records import DRAWN, SEEN, Record
from vargpt_lightning.evaluation.protocols import (
    Drawing,
    Question,
    RealPicture,
    drawing_from_record,
    question_from_record,
)
from vargpt_lightning.evaluation.runner import EvaluationSettings, rich_progress
from vargpt_lightning.results import RunFolder

NAME = "name"


def evaluate_run(experiment: Experiment, run: RunFolder) -> dict[str, Any]:
    """Evaluate the run's last stage as the experiment says, write figures and report, print the figures."""
    config = experiment.evaluation
    speaker = load_run(run.path, device="cpu" if experiment.trainer.accelerator == "cpu" else None)
    speaker.settings = generation_settings(experiment, speaker.model)
    asked = collect(experiment, speaker.model.image_tokenizer.picture_size)
    settings = EvaluationSettings(
        answer_batch=config.answer_batch,
        draw_batch=config.draw_batch,
        feature_size=config.feature_size,
        seed=experiment.seed,
    )
    with rich_progress() as progress:
        metrics = examine(run, speaker, asked, settings, progress=progress)
    print_figures(metrics)
    return metrics


def collect(experiment: Experiment, picture_size: int) -> Asked:
    """Return what to ask: held-out questions, open names of training pictures, one drawing for each picture."""
    config, seed = experiment.evaluation, experiment.seed
    splits = {split: experiment.data.open(split) for split in ("train", "val", "test")}
    pictures: dict[str, RealPicture] = {}
    questions: list[Question] = []
    drawings: list[Drawing] = []
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for split, sources in splits.items():
        asking = _records(sources, seen=True)
        requests = _records(sources, seen=False)
        if split == "train":
            for record in asking:
                answers[record.meta["kind"]][str(record.meta["answer"])] += 1
            asking = _pick([record for record in asking if record.meta["kind"] == NAME], config.names, seed)
        questions += [question_from_record(record, split) for record in _limit(asking, config, seed)]
        wanted = config.drawings if split == "train" else int(config.heldout_drawings)
        for record in _per_picture(requests, wanted):
            drawings.append(drawing_from_record(record, split, seed=seed * 1_000_003 + len(drawings)))
        for record in [*requests, *asking]:
            _add_picture(pictures, record, split, picture_size)
    return Asked(questions, drawings, list(pictures.values()), answers)


def _records(sources: dict[str, ShardDataset], seen: bool) -> list[Record]:
    """The records that show a picture and ask, or that ask for a drawing."""
    return [
        record
        for source in sources.values()
        for record in source
        if record.turns[0].role == "user" and len(record.pictures(SEEN if seen else DRAWN)) == 1
    ]


def _limit(records: list[Record], config: EvaluationConfig, seed: int) -> list[Record]:
    if config.questions is None:
        return records
    kinds: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        kinds[record.meta["kind"]].append(record)
    return [record for members in kinds.values() for record in _pick(members, config.questions, seed)]


def _pick(records: list[Record], count: int, seed: int) -> list[Record]:
    return records if len(records) <= count else random.Random(seed).sample(records, count)


def _per_picture(records: Iterable[Record], count: int) -> list[Record]:
    taken: Counter[str] = Counter()
    result = []
    for record in records:
        key = record.pictures(DRAWN)[0].key
        if taken[key] < count:
            taken[key] += 1
            result.append(record)
    return result


def _add_picture(pictures: dict[str, RealPicture], record: Record, split: str, size: int) -> None:
    part = record.pictures()[0]
    if part.key in pictures or part.data is None:
        return
    image = Image.open(io.BytesIO(part.data)).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    meta = record.meta
    pictures[part.key] = RealPicture(
        part.key, image, meta.get("name", ""), split, meta.get("category", ""), meta.get("subcategory", "")
    )
