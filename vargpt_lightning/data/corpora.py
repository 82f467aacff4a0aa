"""What a stage's mixture can name: packed corpora by name, with a text tokenizer for them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from vargpt_lightning.data.images.resize_modes import Resizing
from vargpt_lightning.data.mixing.schedule import WINDOW
from vargpt_lightning.data.openmoji.pictures import DEFAULT_CATEGORIES
from vargpt_lightning.data.openmoji.source import OpenMojiSettings, build_openmoji
from vargpt_lightning.data.scenes.compose import SceneCounts
from vargpt_lightning.data.scenes.source import CORPORA, EDITS, SceneSettings, build_scenes
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.text.chat import spoken_texts
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.names import check_name
from vargpt_lightning.utils.ranges import Few, Range, Rows, Seed, check_numbers

Several = Annotated[int, Range(1, 100_000)]
TEXTS = 100_000  # records that a text tokenizer is trained on
DrawnFit = Literal["crop", "pad", "var"]
VisualTokensUse = Literal["auto", "require", "off"]


@dataclass(kw_only=True)
class LoaderSettings:
    """How records become batches: keys that all classes of `data` have.

    Args:
        seen_variants: number of variants of each seen picture (mild augmentations) that training uses in turn; 1 uses
            only the picture itself.
        cache_features: compute the vision tower's features and the codes of drawn pictures once and store them, where
            these networks are frozen; all features must fit into memory.
        workers: number of processes that read batches ahead; 0 reads in the training process. The batches do not depend
            on it.
        prefetch: number of batches that each worker reads ahead.
        pin_memory: whether batches are placed in pinned memory for faster transfer to a GPU; None does so if there is a
            GPU.
        shuffle_shards: records are shuffled among this many shards at a time. A smaller number reads storage more
            sequentially. A corpus with no more shards than this is shuffled completely.
        drawn_fit: how drawn pictures are made square: "crop" takes the middle, "pad" adds white, "var" resizes and
            crops as VAR does (randomly in training, the centre in validation).
        drawn_variants: number of variants of each drawn picture that training uses in turn: the picture (its centre)
            and random crops with "var", mild augmentations with the others; 0 makes a new one each time.
        drawn_flip: mirror every second variant.
        resizing: library that resizes plain JPEG pictures that are neither augmented nor cached: "pillow", as the
            authors do, or "torch", which needs a third of the time and differs by 1 in about one of 300 pixel values.
        visual_tokens: "auto" uses matching codes from `vargpt data tokenize`, "require" stops if there are none, "off"
            always encodes during training.
    """

    seen_variants: Several = 1
    cache_features: bool = False
    workers: Few = 0
    prefetch: Several = 2
    pin_memory: bool | None = None
    shuffle_shards: Several = WINDOW
    drawn_fit: DrawnFit = "crop"
    drawn_variants: Few = 1
    drawn_flip: bool = False
    resizing: Resizing = "pillow"
    visual_tokens: VisualTokensUse = "auto"

    def __post_init__(self) -> None:
        check_numbers(self, "data")


class Corpora(LoaderSettings, ABC):
    """Where a run's data come from; subclasses are dataclasses, and say how the corpora are found or made."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The corpora that stages may name."""

    @abstractmethod
    def open(self, split: str) -> dict[str, ShardDataset]:
        """Return the corpora of a split ("train", "val", "test") by name; those that a split lacks are left out."""

    @abstractmethod
    def text_tokenizer(self) -> TextTokenizer:
        """Return the text tokenizer, trained or loaded."""


@dataclass
class OpenMoji(Corpora):
    """Questions about OpenMoji's pictures, requests to draw them, the pictures alone, and facts about their names.

    Args:
        categories: OpenMoji's categories; None uses all nine.
        picture_size: size of the stored pictures in pixels.
        seed: seed for the wording of questions and requests.
        vocabulary: size of the byte-level BPE vocabulary that is trained on the texts.
        drawings: number of differently worded requests to draw for each picture.
        cache: folder for prepared data; by default $VARGPT_CACHE or ~/.cache/vargpt-lightning.

    Other arguments are those of `LoaderSettings`.
    """

    categories: list[str] | None = field(default_factory=lambda: list(DEFAULT_CATEGORIES))
    picture_size: Annotated[int, Range(16, 4096)] = 128
    seed: Seed = 0
    vocabulary: Rows = 1500
    drawings: Annotated[int, Range(1, 10_000)] = 8
    cache: str | None = None

    names: ClassVar[tuple[str, ...]] = ("questions", "drawings", "pictures", "facts")

    @property
    def settings(self) -> OpenMojiSettings:
        """What the prepared data depend on."""
        categories = None if self.categories is None else tuple(self.categories)
        return OpenMojiSettings(categories, self.picture_size, self.seed, drawings=self.drawings)

    def folder(self) -> Path:
        """Return the folder of the prepared data, made first if need be."""
        return build_openmoji(self.settings, self.cache)

    def open(self, split: str) -> dict[str, ShardDataset]:
        folder = self.folder()
        folders = {name: folder / f"{split}-{name}" for name in OpenMoji.names}
        return {name: ShardDataset(path) for name, path in folders.items() if split == "train" or path.is_dir()}

    def text_tokenizer(self) -> TextTokenizer:
        texts = chain.from_iterable(_texts(corpus) for corpus in self.open("train").values())
        return TextTokenizer.train(texts, self.vocabulary)


@dataclass
class Scenes(OpenMoji):
    """OpenMoji's pictures as in `OpenMoji`, and scenes put together from 32 shapes in eight colours, with their counts.

    The splits of the scenes are "train", seen combinations; "val", the same combinations in new pictures; "test", the
    combinations that are held out. Single pictures of OpenMoji are never asked to be drawn by a name that was not
    trained.

    Args:
        held_out: share of the combinations (shape and colour, shape and count, two shapes) that no training record
            shows.
        scene_shapes: how many of the 32 shapes there are.
        scene_size: size of the scenes in pixels.
        scene_variants: number of pictures of each seen combination, as far as there are so many; an eighth of it
            for each placing of two shapes.
        scene_conversations: number of conversations of two to four turns about scenes.
        scene_edits: number of pictures that are recoloured ("Make it red."), as the corpus scene_edits; 0 for none.

    Other arguments are those of `OpenMoji`.
    """

    held_out: Annotated[float, Range(0.0, 0.5)] = 0.25
    scene_shapes: Annotated[int, Range(4, 32)] = 32
    scene_size: Annotated[int, Range(32, 4096)] = 64
    scene_variants: Annotated[int, Range(1, 100_000)] = 16
    scene_conversations: Annotated[int, Range(1, 1_000_000)] = 1000
    scene_edits: Annotated[int, Range(0, 1_000_000)] = 0

    names: ClassVar[tuple[str, ...]] = (*OpenMoji.names, *CORPORA, EDITS)

    @property
    def scene_settings(self) -> SceneSettings:
        """What the scenes depend on."""
        each = self.scene_variants
        return SceneSettings(
            self.scene_size,
            self.seed,
            self.held_out,
            self.settings.categories,
            self.scene_shapes,
            train=SceneCounts(colour=each, count=each, pair=max(1, each // 8)),
            conversations=self.scene_conversations,
            edits=self.scene_edits,
        )

    def open(self, split: str) -> dict[str, ShardDataset]:
        things, scenes = super().open(split), build_scenes(self.scene_settings, self.cache)
        if split != "train":
            things = {name: corpus for name, corpus in things.items() if name not in ("drawings", "pictures")}
        folders = {name: scenes / f"{split}-{name}" for name in (*CORPORA, EDITS)}
        return things | {name: ShardDataset(path) for name, path in folders.items() if path.is_dir()}


@dataclass
class Packed(Corpora):
    """Folders of packed records, as written by `vargpt data pack`.

    Args:
        train: names of corpora with their folders.
        val: the same for validation, for corpora that have validation data.
        tokenizer: a `tokenizer.json`, or the folder of a language model's tokenizer; if empty, one is trained on the
            texts.
        vocabulary: size of the byte-level BPE vocabulary that is trained on the texts if `tokenizer` is empty.

    Other arguments are those of `LoaderSettings`.
    """

    train: dict[str, str] = field(default_factory=dict)
    val: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    vocabulary: Rows | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "val"):
            for name in getattr(self, split):
                check_name(str(name), f"data.{split}: corpus", "a name")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.train)

    def open(self, split: str) -> dict[str, ShardDataset]:
        folders = {"train": self.train, "val": self.val}.get(split, {})
        return {name: ShardDataset(path) for name, path in folders.items()}

    def text_tokenizer(self) -> TextTokenizer:
        if self.tokenizer:
            return TextTokenizer.load(self.tokenizer)
        if self.vocabulary is None:
            raise UserError(
                "data: neither tokenizer nor vocabulary is given; expected a tokenizer.json or the folder of a "
                "tokenizer, or the vocabulary of one that is trained on the texts"
            )
        corpora = self.open("train").values()
        texts = chain.from_iterable(_texts(_some(corpus, TEXTS // len(corpora))) for corpus in corpora)
        return TextTokenizer.train(texts, self.vocabulary)


def _some(corpus: ShardDataset, count: int) -> Iterator[Record]:
    """At most `count` records, evenly spread."""
    taken = min(len(corpus), max(1, count))
    return (corpus[place * len(corpus) // taken] for place in range(taken))


def _texts(corpus: Any) -> Iterator[str]:
    for record in corpus:
        yield from spoken_texts(record)
