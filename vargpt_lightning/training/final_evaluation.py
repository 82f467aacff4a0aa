"""The evaluation that ends a run: questions, drawings and real pictures of its data, asked of its last model."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

from vargpt_lightning.data.corpora import OpenMoji
from vargpt_lightning.data.images.pictures import PictureError, decode_picture, make_square
from vargpt_lightning.data.openmoji.pictures import ATTRIBUTION
from vargpt_lightning.data.scenes.edits import EDIT
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, SEEN, Record
from vargpt_lightning.evaluation.base.protocols import (
    OWN,
    Drawing,
    Edit,
    Question,
    RealPicture,
    Talk,
    drawing_from_record,
    question_from_record,
    talk_from_record,
)
from vargpt_lightning.evaluation.composition.edits import edit_from_record, is_edit
from vargpt_lightning.evaluation.composition.training_pictures import training_pictures
from vargpt_lightning.evaluation.harness.progress import benchmark_progress
from vargpt_lightning.evaluation.run.examine import Asked, examine, print_figures
from vargpt_lightning.evaluation.run.runner import EvaluationSettings
from vargpt_lightning.experiment.schema import EvaluationConfig, Experiment
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.modules.trainable import summary
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.samples import generation_settings
from vargpt_lightning.utils.counted import counted

NAME = "name"
CONVERSATION = "conversation"  # the kind of records whose turns are asked one after another
SCENE = "scene"  # the key of a record's `meta` that says what is in a picture put together by program
FEW_WORDS = 20  # of an answer that can be told in the same words
SCENE_MANY = 150  # questions of each kind about scenes of a split, likewise
MANY = 200  # questions of your own that are asked of a split, where evaluation.questions does not say


def evaluate_run(experiment: Experiment, run: RunFolder) -> dict[str, Any]:
    """Evaluate the run's last stage as the experiment says, write figures and report, print the figures."""
    config = experiment.evaluation
    assistant = load_run(run.path, device="cpu" if experiment.trainer.accelerator == "cpu" else None)
    assistant.settings = generation_settings(experiment, assistant.model)
    asked = collect(experiment, assistant.model.image_tokenizer.picture_size)
    settings = EvaluationSettings(
        answer_batch=config.answer_batch,
        draw_batch=config.draw_batch,
        feature_size=config.feature_size,
        seed=experiment.seed,
        aims=config.aims,
        judges=tuple(config.judges),
    )
    run.update(
        parameters={name: count for name, count, _ in summary(assistant.model)},
        attribution=ATTRIBUTION if isinstance(experiment.data, OpenMoji) else "",
    )
    with benchmark_progress() as progress:
        metrics = examine(run, assistant, asked, settings, progress=progress)
    print_figures(metrics)
    return metrics


def collect(experiment: Experiment, picture_size: int) -> Asked:
    """Return what to ask: held-out questions, open names of training pictures, one drawing for each picture.

    A record that names no kind and answer in its `meta`, as one of your own corpora, is a question of the kind "own":
    its first answer is the right one, where that is a line of a few words. Records whose picture cannot be decoded are
    left out, with one line that says how many.
    """
    config = experiment.evaluation
    seed = experiment.seed if config.seed is None else config.seed
    gallery = _Gallery(picture_size)
    questions: list[Question] = []
    drawings: list[Drawing] = []
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    prompts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    ids = _Ids()
    talks: list[Talk] = []
    kept = None
    edits: list[Edit] = []
    for split in ("train", "val", "test"):
        sources = experiment.data.open(split)
        if split != "train":
            changed = [
                record for source in sources.values() if EDIT in source.index.get("kinds", {}) for record in source
            ]
            some = _spread([record for record in changed if is_edit(record)], config.scene_drawings, seed)
            edits += [edit_from_record(record, split, seed * 1_000_003 + place) for place, record in enumerate(some)]
            holding = [source for source in sources.values() if CONVERSATION in source.index.get("kinds", {})]
            held = (record for source in holding for record in source if _kind(record) == CONVERSATION)
            talks += [talk_from_record(record, seed) for record in held]
        drawn = _records(sources, DRAWN, ids, split)
        if split == "train":
            kept = training_pictures(drawn)
        requests = [record for record in _requests(drawn, split, config, seed) if gallery.add(record, split)]
        asking = [asked for record in _records(sources, SEEN, ids, split) if (asked := _asked(record)) is not None]
        if split == "train":
            for record in asking:
                answers[record.meta["kind"]][str(record.meta["answer"])] += 1
                if SCENE in record.meta:
                    prompts[record.meta["kind"]][record.turns[0].text][str(record.meta["answer"])] += 1
            open_ones = [[record for record in asking if record.meta["kind"] == kind] for kind in (NAME, OWN)]
            asking = [record for those in open_ones for record in _pick(those, config.names, seed)]
        asking = [record for record in _limit(asking, config, seed) if gallery.add(record, split)]
        questions += [question_from_record(record, split) for record in asking]
        wanted = config.drawings if split == "train" else int(config.heldout_drawings)
        for record in _per_picture(requests, wanted, config.drawings_limit):
            drawings.append(drawing_from_record(record, split, seed=seed * 1_000_003 + len(drawings)))
    if gallery.bad:
        lost = (
            f"{counted(len(gallery.bad), 'picture')} cannot be decoded and {'is' if len(gallery.bad) == 1 else 'are'}"
        )
        print(f"evaluation: {lost} left out: {min(name for name, _ in gallery.bad)}, ...")
    pictures = list(gallery.pictures.values())
    return Asked(questions, drawings, pictures, answers, prompts, talks, kept, config.repeats, edits)


def _requests(found: list[Record], split: str, config: EvaluationConfig, seed: int) -> list[Record]:
    """The requests to draw of a split: of scenes, whose combinations were trained or not, some of each kind."""
    scenes: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        if SCENE in record.meta:
            scenes[record.meta[SCENE]["kind"]].append(record)
    chosen = [] if split == "train" else [_spread(those, config.scene_drawings, seed) for those in scenes.values()]
    return [record for record in found if SCENE not in record.meta] + [record for those in chosen for record in those]


def _kind(record: Record) -> str:
    return str(record.meta.get("kind", ""))


def _asked(record: Record) -> Record | None:
    """The record with the kind and the right answer of its question; None where it has no answer to compare with."""
    if {"kind", "answer"} <= record.meta.keys():
        return record
    answer = next((turn.text.strip() for turn in record.turns if turn.role == "assistant"), "")
    if not answer or "\n" in answer or len(answer.split()) > FEW_WORDS:
        return None
    return replace(record, meta={**record.meta, "kind": OWN, "answer": answer})


def _records(sources: dict[str, ShardDataset], use: str, ids: _Ids, split: str) -> list[Record]:
    """The records that show one picture and ask about it, or that ask for one drawing, under ids that differ; of pairs
    the chosen answers.
    """
    return [
        ids.alone(record, use, f"{split}/{name}")
        for name, source in sources.items()
        for record in (each.chosen for each in source)
        if record.turns[0].role == "user"
        and _kind(record) != CONVERSATION
        and len(record.pictures()) == len(record.pictures(use)) == 1
    ]


class _Ids:
    """The ids of records by use: those of two corpora, or of two splits of one, may be the same."""

    def __init__(self) -> None:
        self._taken: dict[str, set[str]] = defaultdict(set)

    def alone(self, record: Record, use: str, corpus: str) -> Record:
        """Return the record, under an id with its corpus where another one has its own."""
        taken, id_ = self._taken[use], record.id
        while id_ in taken:
            id_ = f"{corpus}/{id_}"
        taken.add(id_)
        return record if id_ == record.id else replace(record, id=id_)


def _limit(records: list[Record], config: EvaluationConfig, seed: int) -> list[Record]:
    kinds: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        kinds[record.meta["kind"]].append(record)
    many = {OWN: MANY} | {kind: SCENE_MANY for kind, those in kinds.items() if SCENE in those[0].meta}
    most = many if config.questions is None else dict.fromkeys(kinds, config.questions)
    return [record for kind, those in kinds.items() for record in _pick(those, most.get(kind, len(those)), seed)]


def _pick(records: list[Record], count: int, seed: int) -> list[Record]:
    return records if len(records) <= count else random.Random(seed).sample(records, count)


def _spread(records: list[Record], count: int, seed: int) -> list[Record]:
    """At most `count` records of scenes: one of each combination before a second one of any."""
    times: Counter[str] = Counter()
    order = []
    for place, record in enumerate(random.Random(seed).sample(records, len(records))):
        times[record.meta["cell"]] += 1
        order.append((times[record.meta["cell"]], place, record))
    return [record for *_, record in sorted(order, key=lambda each: each[:2])[:count]]


def _per_picture(records: list[Record], count: int, limit: int | None) -> list[Record]:
    """`count` requests for each picture, for at most `limit` pictures, spread evenly over all."""
    keys = list(dict.fromkeys(record.pictures(DRAWN)[0].key for record in records))
    if limit is not None and limit < len(keys):
        keys = [keys[place * len(keys) // limit] for place in range(limit)]
    left = dict.fromkeys(keys, count)
    result = []
    for record in records:
        key = record.pictures(DRAWN)[0].key
        if left.get(key, 0) > 0:
            left[key] -= 1
            result.append(record)
    return result


class _Gallery:
    """The real pictures that are asked about or asked for, at the size of drawings."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: dict[str, RealPicture] = {}
        self.bad: set[tuple[str, str]] = set()  # names, which people know, and keys

    def add(self, record: Record, split: str) -> bool:
        """Take the record's picture in; False when it cannot be decoded."""
        part, meta = record.pictures()[0], record.meta
        if part.key not in self.pictures and (part.name, part.key) not in self.bad:
            try:
                image = make_square(decode_picture(part.data, part.key), self.size)
            except PictureError:
                self.bad.add((part.name, part.key))
            else:
                about = (
                    meta.get("name", ""),
                    split,
                    meta.get("category", ""),
                    meta.get("subcategory", ""),
                    meta.get(SCENE),
                )
                self.pictures[part.key] = RealPicture(part.key, image, *about)
        return part.key in self.pictures
