"""In which order and in which batches the records of a stage come, as functions of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.mixing.lengths import record_lengths
from vargpt_lightning.data.mixing.mixture import MixtureBatchSampler
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.data.mixing.token_sampler import TokenBatchSampler, TokenPlan, window_records
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import cache_root
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.recipe.stage import Stage


@dataclass(frozen=True)
class RecordOrder:
    """The order of the training records of a run's stages.

    Args:
        context: tokens that the model's context holds, the longest record.
        sources: opens the corpora of a split.
        template: makes the chat template, for lengths in tokens.
        seed: of the order.
    """

    context: int
    corpora: Corpora
    sources: Callable[[str], dict[str, ShardDataset]]
    template: Callable[[], ChatTemplate]
    seed: int

    @property
    def sizes(self) -> dict[str, int]:
        """Records of each training corpus."""
        return {name: len(source) for name, source in self.sources("train").items()}

    def groups(self, split: str) -> dict[str, str]:
        """Records alike in length go into batches together."""
        return {name: "drawn" if source.draws else "text" for name, source in self.sources(split).items()}

    def total_steps(self, stage: Stage, ranks: int = 1) -> int:
        """The optimizer steps of a stage."""
        if stage.max_tokens is not None and stage.epochs is not None:
            windows = self._windows(stage).batches(stage.epochs)
            return -(-self._token_sampler(stage).batches_of(windows) // (ranks * stage.accumulate))
        return stage.total_steps(self.sizes, ranks, self.groups("train"))

    def sampler(
        self, stage: Stage, steps: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> MixtureBatchSampler | TokenBatchSampler:
        if stage.max_tokens is not None:
            return self._token_sampler(stage, steps, start, rank, ranks)
        shards = {name: source.shard_counts for name, source in self.sources("train").items()}
        return MixtureBatchSampler(
            stage.spec(self.sizes, ranks, self.groups("train")),
            steps=steps * stage.accumulate,
            start_step=start * stage.accumulate,
            seed=self.seed,
            rank=rank,
            shards=shards if stage.records is None else None,
            window=self.corpora.shuffle_shards,
        )

    def _windows(self, stage: Stage) -> MixtureSpec:
        """The mixture in windows of records, which become batches by token count; records of all groups meet there."""
        spec = stage.spec(self.sizes)
        size = window_records(sum(spec.epoch.values()))
        return replace(spec, groups=None, batch_sizes=None, batch_size=size, world_size=1)

    def _token_sampler(
        self, stage: Stage, steps: int = 0, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> TokenBatchSampler:
        assert stage.max_tokens is not None
        spec, sources = self._windows(stage), self.sources("train")
        shards = {name: source.shard_counts for name, source in sources.items()}
        order = MixtureBatchSampler(spec, steps=1, seed=self.seed, shards=shards, window=self.corpora.shuffle_shards)
        context = self.context
        kept = cache_root(getattr(self.corpora, "cache", None)) / "lengths"
        return TokenBatchSampler(
            order.batch,
            {name: record_lengths(sources[name], self.template(), kept, context) for name in spec.used},
            TokenPlan(stage.max_tokens, context if stage.packing else None),
            steps=steps * stage.accumulate,
            start_step=start * stage.accumulate,
            seed=self.seed,
            rank=rank,
            world_size=ranks,
        )

    def repeats(self, stage: Stage, total_steps: int, ranks: int = 1) -> dict[str, dict[str, float]]:
        """Return for each corpus of a stage its records, the samples drawn of it, and how often each comes."""
        drawn = self.sampler(stage, total_steps, ranks=ranks).draws(total_steps * stage.accumulate)
        return {
            name: {"records": size, "samples": drawn[name], "times": round(drawn[name] / size, 3)}
            for name, size in stage.spec(self.sizes).sizes.items()
            if name in drawn
        }
