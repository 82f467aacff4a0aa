"""A run's data made ready for its stages: corpora, caches of what frozen networks compute, loaders that resume.

Legend: B pictures, H and W height and width, L visual tokens, N feature tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.images.pictures import LevelReader, PictureError, scale_pictures
from vargpt_lightning.data.loading.collate import collate
from vargpt_lightning.data.loading.examples import ExampleMaker
from vargpt_lightning.data.loading.feature_cache import (
    PictureCache,
)
from vargpt_lightning.data.loading.loader import StreamLoader, stream_loader
from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler, Part
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, SEEN
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.batch_forms import check_records, collator_of, first_examples, maker_of
from vargpt_lightning.training.data.features import SeenFeatures
from vargpt_lightning.training.data.record_order import RecordOrder
from vargpt_lightning.training.data.visual_tokens import StageTokens
from vargpt_lightning.utils.errors import UserError

CALIBRATION_PICTURES = 256
VALIDATION_SEED = 7


@dataclass
class StageData:
    """Loaders for the stages of a run.

    Args:
        config: the model's sizes, for the pictures' sizes and the tokens' numbers.
        corpora: where the data come from.
        tokenizer: the text tokenizer.
        cache: the run's own cache folder, for the visual tokens of drawn pictures.
        seed: of the order of the data.
    """

    config: VARGPTConfig
    corpora: Corpora
    tokenizer: TextTokenizer
    cache: Path
    seed: int = 0
    _opened: dict[str, dict[str, ShardDataset]] = field(default_factory=dict)
    _features: PictureCache | None = None

    def __post_init__(self) -> None:
        self._tokens = StageTokens(self.config.tokenizer, self.corpora, self.cache)
        self._seen = SeenFeatures(self.config.vision, self.corpora, self.sources)
        self.order = RecordOrder(
            self.config.language.max_positions,
            self.corpora,
            self.sources,
            self._template,
            self.seed,
            self.config.tokenizer.picture_shapes,
        )

    def sources(self, split: str) -> dict[str, ShardDataset]:
        """The corpora of a split, opened once."""
        if split not in self._opened:
            self._opened[split] = self.corpora.open(split)
        return self._opened[split]

    def prepare(self, model: VARGPTModel, stage: Stage) -> None:
        """Make the model draw what the stage does, and compute what its frozen networks give for every picture, unless
        it is kept already.

        Raises:
            UserError: the mixture names a corpus that there is not, or lacks what the stage's head trains on.
        """
        self._check(stage)
        model.use_scales(stage.scales)
        if model.config != self.config:
            self.config = model.config
            self._tokens = StageTokens(self.config.tokenizer, self.corpora, self.cache)
        keep = self.corpora.cache_features
        if model.vision_tower is None or not keep or "vision_tower" in stage.train:
            self._features = None
        elif self._features is None and self._sees(stage):
            self._features = self._seen.build(model)
        self._tokens.prepare(model.image_tokenizer, stage, {split: self.sources(split) for split in ("train", "val")})

    def _sees(self, stage: Stage) -> bool:
        """Whether the stage's mixture holds pictures that are seen."""
        corpora = self.sources("train")
        return any(corpora[name].index["pictures"].get(SEEN) for name in stage.data if name in corpora)

    def _template(self) -> ChatTemplate:
        return ChatTemplate(
            self.tokenizer,
            self.config.vision.patches,
            self.config.picture_lengths,
            "answer" if self.config.settings.text_loss == "answer" else "all",
        )

    def _maker(self, vary: bool) -> ExampleMaker:
        resizing, sees = self.corpora.resizing, self.config.vision.kind != "none"
        seen: Any = self._features or (LevelReader(self._seen.reader(), resizing) if sees else None)
        context = self.config.language.max_positions
        drawn, *others = (LevelReader(reader, resizing) for reader in self._tokens.readers)
        return ExampleMaker(self._template(), seen, drawn, context, self.seed, vary, tuple(others))

    def scaled(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return a loader's batch with its pictures, which come as bytes, as networks take them."""
        readers = {"pixel_values": self._seen.reader, "drawn_pixels": lambda: self._tokens.reader}
        return scale_pictures(batch, {name: make() for name, make in readers.items() if name in batch})

    def train_loader(
        self, stage: Stage, total_steps: int, start_step: int, rank: int = 0, world_size: int = 1
    ) -> StreamLoader:
        """Return the batches from an optimizer step on: the same ones that an unbroken run would have had."""
        sampler = self.order.sampler(stage, total_steps, start_step, rank, world_size)
        used = {name: self.sources("train")[name] for name, share in stage.data.items() if share > 0}
        sources: dict[str, Any] = self._tokens.apply("train", used)
        if (sized := self.order.sized(stage)) is not None:
            sources = sized.sources(sources)
        elif stage.records is not None:
            sources = {name: Part(source, stage.records, self.seed) for name, source in sources.items()}
        settings = self.corpora
        return stream_loader(
            Mixture(sources, maker_of(stage, self._maker(vary=True))),
            sampler,
            collator_of(stage, self.tokenizer.pad_id, self.config.language.max_positions),
            workers=settings.workers,
            prefetch=settings.prefetch,
            pin_memory=settings.pin_memory,
        )

    def validation_loader(self, stage: Stage, batches: int) -> DataLoader[Any] | None:
        """Return a few batches of held-out records, always the same; None when the mixture has none."""
        sources = {name: source for name, source in self.sources("val").items() if stage.data.get(name) and len(source)}
        if not sources or batches < 1:
            return None
        groups = self.order.groups("val")
        spec = stage.spec(self.order.sizes, groups=groups)
        values = stage.data if stage.mixture == "weights" else spec.epoch
        weights = {name: values[name] for name in sources}
        records: dict[str, Any] = self._tokens.apply("val", sources)
        if sized := self.order.sized(replace(stage, data=weights, mixture="weights", records=None), "val"):
            records, weights, groups = sized.sources(records), sized.stage.data, dict(sized.groups)
        mixture = Mixture(records, maker_of(stage, self._maker(vary=False)))
        spec = replace(spec, sizes=mixture.sizes, values=weights, by="weights", groups=groups)
        sampler = MixtureBatchSampler(spec, steps=batches, seed=VALIDATION_SEED)
        unpacked = replace(stage, packing=False)
        collate = collator_of(unpacked, self.tokenizer.pad_id, self.config.language.max_positions)
        return DataLoader(mixture, batch_sampler=sampler, collate_fn=collate)

    def watched(self, stage: Stage) -> list[dict[str, Any]]:
        """Return batches of the records that the stage watches, held-out ones where there are some, always the same.

        Raises:
            UserError: none of a corpus's records can be used.
        """
        assert stage.watch is not None
        make, found = self._maker(vary=False), list[dict[str, Any]]()
        for name in stage.watch.data:
            held, train = self.sources("val").get(name), self.sources("train")[name]
            split = "val" if held is not None and len(held) else "train"
            source = self._tokens.apply(split, {name: held or train})[name]
            examples = first_examples(name, source, make, stage.watch.records)
            for begin in range(0, len(examples), stage.batch_size):
                found.append(collate(examples[begin : begin + stage.batch_size], self.tokenizer.pad_id))
        return found

    def _check(self, stage: Stage) -> None:
        there = self.sources("train")
        for name in stage.data:
            if name not in there:
                raise UserError(f"stages.{stage.name}.data: {name!r} is not a corpus; there are {', '.join(there)}")
        used = {name: there[name].draws for name, weight in stage.data.items() if weight > 0}
        wordy = [name for name, draws in used.items() if not draws]
        if stage.head == "tokenizer" and wordy:
            raise UserError(
                f"stages.{stage.name}.data: {wordy[0]!r} has no drawn pictures; expected corpora that the head "
                f"tokenizer can train on: {_listed(name for name, source in there.items() if source.draws)}"
            )
        check_records(stage, {name: there[name] for name in used})
        if (stage.head in ("generation", "grpo") or stage.decoder_alone) and len(wordy) == len(used):
            raise UserError(
                f"stages.{stage.name}.data: {', '.join(used)} have no drawn pictures to train on; corpora that have "
                f"some: {_listed(name for name, source in there.items() if source.draws)}"
            )

    def drawn_pictures(self, count: int) -> Tensor:
        """Return training pictures (B, 3, H, W) in [-1, 1], at most `count`, always the same; bad ones are left out.

        Raises:
            UserError: there is not one.
        """
        reader, found = self._tokens.reader, dict[str, Tensor]()
        for source in self.sources("train").values():
            for record in source if source.draws else ():
                for part in record.pictures(DRAWN):
                    if part.key not in found and len(found) < count:
                        with contextlib.suppress(PictureError):
                            found[part.key] = reader.read(part.data, part.name)
                if len(found) == count:
                    return torch.stack(list(found.values()))
        if not found:
            raise UserError(f"data: no drawn picture can be read from {_listed(self.sources('train'))}")
        return torch.stack(list(found.values()))

    def calibration_pictures(self) -> Tensor:
        """Return the pictures to lay a codebook over."""
        return self.drawn_pictures(CALIBRATION_PICTURES)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
