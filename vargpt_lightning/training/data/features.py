"""Features of the pictures that a stage sees, computed once while the vision tower is frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace

from torch import nn

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.loading.feature_cache import (
    FeatureCache,
    PictureCache,
    fingerprint_of,
    hash_of_pictures,
    pictures_of,
    weights_hash,
)
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import cache_root
from vargpt_lightning.data.shards.records import SEEN, PicturePart
from vargpt_lightning.inference.assistant import seen_reader
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.models.vargpt import VARGPTModel

IDLE_VISION_SETTINGS = ("pretrained", "dropout", "fit")  # the reader, or nothing, depends on these


class SeenFeatures:
    """The features that a frozen tower gives for every picture of the corpora.

    Args:
        sources: opens the corpora of a split.
    """

    def __init__(
        self, vision: VisionConfig, corpora: Corpora, sources: Callable[[str], dict[str, ShardDataset]]
    ) -> None:
        self.vision, self.corpora, self.sources = vision, corpora, sources
        self._found: dict[str, tuple[dict[str, PicturePart], set[str]]] = {}

    def reader(self) -> PictureReader:
        """Return how pictures are read for the tower, with their variants."""
        return replace(seen_reader(self.vision), variants=self.corpora.seen_variants)

    def build(self, model: VARGPTModel) -> PictureCache | None:
        """Return the features of every picture, computed or read from the cache; None where there is no picture."""
        pictures, plain = self._pictures(SEEN)
        if not pictures:
            return None
        assert model.vision_tower is not None
        network = _network(model.vision_tower, self.vision)
        path = cache_root(getattr(self.corpora, "cache", None)) / "features"
        reader = self.reader()
        files = {key: part.data or b"" for key, part in pictures.items()}
        names = {key: part.name for key, part in pictures.items()}
        made_of = hash_of_pictures(files, {key: 1 if key in plain else reader.variants for key in files}, names)
        file = path / f"{fingerprint_of(network, reader)}-{made_of[:16]}.safetensors"
        return FeatureCache.build(files, reader, model.see, network=network, path=file, plain=plain, names=names)

    def _pictures(self, use: str) -> tuple[dict[str, PicturePart], set[str]]:
        """All pictures of a use by key, and the keys of those that are not trained on, never varied; read once."""
        if use not in self._found:
            found: dict[str, PicturePart] = {}
            trained: set[str] = set()
            for split in ("train", "val"):  # a stage reads no others
                for source in self.sources(split).values():
                    pictures = pictures_of(source, use) if source.index["pictures"][use] else {}
                    same = {key: min((found.get(key, part), part), key=_name) for key, part in pictures.items()}
                    found |= same
                    trained |= set(pictures) if split == "train" else set()
            self._found[use] = found, set(found) - trained
        return self._found[use]


def _network(tower: nn.Module, settings: VisionConfig) -> str:
    """A hash of all that a tower's features depend on: which layer they are of is not in its weights."""
    values = {key: value for key, value in asdict(settings).items() if key not in IDLE_VISION_SETTINGS}
    text = json.dumps([weights_hash(tower.state_dict()), values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(part: PicturePart) -> str:
    return part.name
