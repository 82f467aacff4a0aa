"""In which order and in which batches the records of a stage come, as functions of seed and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.images.shapes import Shape
from vargpt_lightning.data.mixing.buckets import (
    Bucket,
    Sized,
    buckets_of,
    corpus_of,
    mixture_values,
    record_sizes,
)
from vargpt_lightning.data.mixing.lengths import record_lengths
from vargpt_lightning.data.mixing.mixture import MixtureBatchSampler, Part
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.data.mixing.token_sampler import TokenBatchSampler, TokenPlan, window_records
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import cache_root
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.recipe.stage import Stage


@dataclass(frozen=True)
class SizedStage:
    """A stage with buckets in place of its corpora, as its model draws several sizes (see `data.mixing.buckets`).

    Attributes:
        stage: with what each bucket has of the mixture.
        buckets: by name.
        sizes: records of each bucket.
        groups: buckets whose records go into batches together.
        shards: how many records of each bucket each shard has.
    """

    stage: Stage
    buckets: Mapping[str, Bucket]
    sizes: Mapping[str, int]
    groups: Mapping[str, str]
    shards: Mapping[str, Sequence[int]]

    def sources(self, corpora: Mapping[str, Any]) -> dict[str, Any]:
        """Return the buckets of some corpora as sources of records."""
        used = {name: bucket for name, bucket in self.buckets.items() if bucket.corpus in corpora}
        return {name: Sized(corpora[bucket.corpus], bucket) for name, bucket in used.items()}


@dataclass(frozen=True)
class RecordOrder:
    """The order of the training records of a run's stages.

    Args:
        context: tokens that the model's context holds, the longest record.
        sources: opens the corpora of a split.
        template: makes the chat template, for lengths in tokens.
        seed: of the order.
        shapes: height and width in pixels of all sizes of pictures that the model draws.
    """

    context: int
    corpora: Corpora
    sources: Callable[[str], dict[str, ShardDataset]]
    template: Callable[[], ChatTemplate]
    seed: int
    shapes: tuple[Shape, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Records of each training corpus."""
        return {name: len(source) for name, source in self.sources("train").items()}

    def groups(self, split: str) -> dict[str, str]:
        """Records alike in length go into batches together."""
        return {name: "drawn" if source.draws else "text" for name, source in self.sources(split).items()}

    def sized(self, stage: Stage, split: str = "train") -> SizedStage | None:
        """Return the stage with buckets in place of its corpora; None where the model draws one size."""
        if len(self.shapes) < 2:
            return None
        groups, sources = self.groups(split), self.sources(split)
        found = {name: self._buckets(name, sources[name], stage) for name in stage.data if name in sources}
        buckets = {bucket.name: bucket for own in found.values() for bucket in own}
        return SizedStage(
            replace(stage, data=mixture_values(stage.data, stage.mixture, found), records=None),
            buckets,
            {name: len(bucket.positions) for name, bucket in buckets.items()},
            {name: f"{groups[bucket.corpus]}{bucket.size or ''}" for name, bucket in buckets.items()},
            {name: bucket.shards(sources[bucket.corpus].shard_counts) for name, bucket in buckets.items()},
        )

    def _buckets(self, name: str, source: ShardDataset, stage: Stage) -> list[Bucket]:
        among = None if stage.records is None else Part(source, stage.records, self.seed).positions
        return buckets_of(name, record_sizes(source, self.shapes, self._kept("shapes")), among)

    def _kept(self, what: str) -> Any:
        return cache_root(getattr(self.corpora, "cache", None)) / what

    def total_steps(self, stage: Stage, ranks: int = 1) -> int:
        """The optimizer steps of a stage."""
        if stage.max_tokens is not None and stage.epochs is not None:
            windows = self._windows(stage).batches(stage.epochs)
            return -(-self._token_sampler(stage).batches_of(windows) // (ranks * stage.accumulate))
        if (own := self.sized(stage)) is not None:
            return own.stage.total_steps(own.sizes, ranks, own.groups)
        return stage.total_steps(self.sizes, ranks, self.groups("train"))

    def sampler(
        self, stage: Stage, steps: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> MixtureBatchSampler | TokenBatchSampler:
        if stage.max_tokens is not None:
            return self._token_sampler(stage, steps, start, rank, ranks)
        own = self.sized(stage)
        if own is not None:
            spec, shards = own.stage.spec(own.sizes, ranks, own.groups), own.shards
        else:
            spec = stage.spec(self.sizes, ranks, self.groups("train"))
            shards = {name: source.shard_counts for name, source in self.sources("train").items()}
        return MixtureBatchSampler(
            spec,
            steps=steps * stage.accumulate,
            start_step=start * stage.accumulate,
            seed=self.seed,
            rank=rank,
            shards=shards if stage.records is None else None,
            window=self.corpora.shuffle_shards,
        )

    def _windows(self, stage: Stage) -> MixtureSpec:
        """The mixture in windows of records, which become batches by token count; records of all groups meet there."""
        own = self.sized(stage)
        spec = stage.spec(self.sizes) if own is None else own.stage.spec(own.sizes)
        size = window_records(sum(spec.epoch.values()))
        return replace(spec, groups=None, batch_sizes=None, batch_size=size, world_size=1)

    def _token_sampler(
        self, stage: Stage, steps: int = 0, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> TokenBatchSampler:
        assert stage.max_tokens is not None
        spec, own, sources = self._windows(stage), self.sized(stage), self.sources("train")
        shards: Mapping[str, Sequence[int]]
        if own is None:
            buckets = {
                name: buckets_of(name, record_sizes(sources[name], (), self._kept("shapes")))[0] for name in spec.used
            }
            shards = {name: source.shard_counts for name, source in sources.items()}
        else:
            buckets, shards = dict(own.buckets), own.shards
        order = MixtureBatchSampler(spec, steps=1, seed=self.seed, shards=shards, window=self.corpora.shuffle_shards)
        return TokenBatchSampler(
            order.batch,
            {name: self._lengths(sources[buckets[name].corpus], buckets[name]) for name in spec.used},
            TokenPlan(stage.max_tokens, self.context if stage.packing else None),
            steps=steps * stage.accumulate,
            start_step=start * stage.accumulate,
            seed=self.seed,
            rank=rank,
            world_size=ranks,
            groups={name: buckets[name].size for name in spec.used},
        )

    def _lengths(self, source: ShardDataset, bucket: Bucket) -> Any:
        lengths_N = record_lengths(source, self.template(), self._kept("lengths"), self.context, bucket.size)
        return lengths_N[bucket.positions]

    def repeats(self, stage: Stage, total_steps: int, ranks: int = 1) -> dict[str, dict[str, float]]:
        """Return for each corpus of a stage its records, the samples drawn of it, and how often each comes."""
        drawn: Counter[str] = Counter()
        for name, count in self.sampler(stage, total_steps, ranks=ranks).draws(total_steps * stage.accumulate).items():
            drawn[corpus_of(name)] += count
        return {
            name: {"records": size, "samples": drawn[name], "times": round(drawn[name] / size, 3)}
            for name, size in stage.spec(self.sizes).sizes.items()
            if name in drawn
        }
