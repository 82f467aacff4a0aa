"""Traces of a large model's steps, put together from those of a shallow one with two small batches.

A tower's inner blocks do the same, so the trace of a few of them is repeated; every operation is linear in the batch,
so two batches tell any other. Both are exact, which the tests show on small models. Where a batch has so many trained
tokens that the language model's head computes them in chunks, so have the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.head_loss import CHUNKS, chunked
from vargpt_lightning.models.core.losses import IGNORED
from vargpt_lightning.models.vision import NONE, get
from vargpt_lightning.models.vision.tower import blocks_name
from vargpt_lightning.planning.kernels import Target
from vargpt_lightning.planning.steps import RowShape, batch_of, build_empty, trace_step
from vargpt_lightning.planning.trace import Trace, deepened, extrapolated
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage

SMALL_BATCHES = (2, 3)
"""Not 1: tensors of one row need no copies where larger ones do."""


def checkpointing_period(sharding: ShardingConfig) -> int:
    """Return after how many blocks a tower's checkpointing repeats itself."""
    every = sharding.checkpointing.removeprefix("every_")
    return int(every) if every.isdigit() else 1


def shallow_depth(depth: int, period: int) -> int:
    """Return the fewest blocks that stand for `depth` of them; `depth` itself where that is not fewer.

    The repeated ones are between the first and two more: a picture's features are often those of the last block but
    one, and until then are all kept that have been read before them.
    """
    fewest = period + 3 + (depth - 3) % period
    return min(fewest, depth)


def towers(config: VARGPTConfig) -> dict[str, int]:
    """Return the names of the towers' block lists in the model, and their depths."""
    depths = {"language_model.model.layers": config.language.layers, "visual_decoder.blocks": config.decoder.depth}
    if config.vision.kind != NONE and (name := blocks_name(get(config.vision.kind))):
        depths[f"vision_tower.{name}"] = config.vision.layers
    return depths


def shallow(config: VARGPTConfig, period: int) -> VARGPTConfig:
    """Return a configuration with few blocks a tower and all else the same."""
    decoder, vision = config.decoder, config.vision
    few = shallow_depth(vision.layers, period)
    drop_path = decoder.resolved_drop_path(config.tokenizer.kind)
    return replace(
        config,
        language=replace(config.language, layers=shallow_depth(config.language.layers, period)),
        vision=replace(vision, layers=few, feature_layer=_late(vision.feature_layer, vision.layers)),
        decoder=replace(
            decoder,
            depth=shallow_depth(decoder.depth, period),
            width=decoder.resolved_width,
            heads=decoder.resolved_heads,
            drop_path=drop_path,
            chunks=1,
        ),
    )


def _late(layer: int | None, depth: int) -> int | None:
    """The hidden state that stands for a tower's feature: of those before the last, the one before it."""
    return layer if layer is None or layer == -1 else -1 if layer == depth else -2


@dataclass
class StageTraces:
    """Traces of one stage for any batch, kept as they are made.

    Args:
        kinds: type of the weights that are computed with; the image tokenizer's own where it differs.
    """

    config: VARGPTConfig
    stage: Stage
    dtype: torch.dtype
    tokenizer_dtype: torch.dtype | None = None
    target: Target = "cuda"
    _kept: dict[tuple[RowShape, str, int], Trace] = field(default_factory=dict)
    _trained: dict[RowShape, int] = field(default_factory=dict)

    def at(self, row: RowShape, count: int, sharding: ShardingConfig) -> Trace:
        """Return the trace of a step with `count` rows."""
        small = self._batches_like(row, count)
        if count in small:
            return self._deep(row, count, sharding)
        low, high = (self._deep(row, each, sharding) for each in small)
        return extrapolated(low, high, *small, count)

    def _batches_like(self, row: RowShape, count: int) -> tuple[int, int]:
        """Return the sizes of two small batches that do what one of `count` rows does; twice its own if none does."""
        vocabulary = self.config.language.vocabulary
        if chunked(count * self._text_tokens(row), vocabulary, self.dtype):
            # chunks that are exactly linear: each has as many rows as any other
            low = CHUNKS
            while not chunked(low * self._text_tokens(row), vocabulary, self.dtype):
                low += CHUNKS
            return low, low + CHUNKS
        if chunked(max(SMALL_BATCHES) * self._text_tokens(row), vocabulary, self.dtype):
            return count, count
        return SMALL_BATCHES

    def _text_tokens(self, row: RowShape) -> int:
        """Return how many text tokens of a row are trained."""
        if row not in self._trained:
            batch = batch_of(row, 1, self.config, self.dtype)
            labels_BT = self._model(1).text_labels(batch)
            self._trained[row] = 0 if labels_BT is None else int((labels_BT[:, 1:] != IGNORED).sum())
        return self._trained[row]

    def _deep(self, row: RowShape, count: int, sharding: ShardingConfig) -> Trace:
        key = (row, sharding.checkpointing, count)
        if key not in self._kept:
            period = checkpointing_period(sharding)
            trace = trace_step(self._model(period), self.stage, row, count, sharding, self.target)
            for tower, depth in towers(self.config).items():
                trace = deepened(trace, tower, depth, period)
            self._kept[key] = trace
        return self._kept[key]

    def _model(self, period: int) -> VARGPT:
        model = build_empty(shallow(self.config, period), self.dtype)
        if self.tokenizer_dtype is not None:
            model.image_tokenizer.to(self.tokenizer_dtype)
        return model
