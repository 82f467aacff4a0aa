"""One stage on one cluster: memory of a rank over a step, work, time, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.language.quantization import low_bit_layers
from vargpt_lightning.modules.optim.optimizers import parameter_groups
from vargpt_lightning.modules.preferences.grpo import copied_parts
from vargpt_lightning.modules.trainable import prepare_model
from vargpt_lightning.planning.layout import SHARDED, Layout, Timeline, groups_of, lay_out
from vargpt_lightning.planning.steps import RowShape, drawn_tokens, named_blocks
from vargpt_lightning.planning.trace import Trace
from vargpt_lightning.planning.truncated_model import StageTraces
from vargpt_lightning.recipe.heads import PREFERENCES
from vargpt_lightning.recipe.plan import CorpusShape, PlanConfig
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.gpus import COMMUNICATION, CONTEXT, FRAGMENTS, KERNEL_CACHE, Cluster, catalogue


@dataclass(frozen=True)
class Choice:
    """What may be changed to make a stage fit; the samples of a step stay the same."""

    strategy: str
    sharding: ShardingConfig
    batch_size: int
    accumulate: int


@dataclass
class Memory:
    """Bytes of one rank: the timeline of its worst batch, and what no trace sees."""

    timeline: Timeline
    row: RowShape
    context: int
    communication: int
    fragments: int
    kernel_cache: int = KERNEL_CACHE

    @property
    def peak(self) -> int:
        return self.timeline.peak + self.context + self.communication + self.fragments + self.kernel_cache

    @property
    def largest_operation(self) -> tuple[str, int]:
        """The operation that takes most at once, and how much."""
        trace = self.timeline.trace
        grown_R = trace.changes_RK[:, 1:3].sum(1)
        row = int(grown_R.argmax())
        return trace.operations[row], int(grown_R[row])


@dataclass
class Work:
    """What the average step of all ranks computes."""

    flops: float
    model_flops: float
    tokens: float
    image_tokens: float
    samples: float
    lower_bound: float
    """Seconds of the step on this GPU if every operation reached the peak or the bandwidth."""


@dataclass
class StagePlan:
    """A stage's plan; bytes are of one rank, work is of all ranks together.

    Of the parameters' bytes, `low_bits` are of frozen weights in few bits, with their scales.
    """

    stage: Stage
    choice: Choice
    layout: Layout
    memory: Memory
    work: Work
    steps: int
    cluster: Cluster
    efficiency: float
    trained: int
    low_bits: int = 0
    assumed: list[str] = field(default_factory=list)
    ways: list[tuple[list[str], Choice, int]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.cluster.gpu.memory

    @property
    def seconds(self) -> float:
        """Of a step, at the stated efficiency; never less than arithmetic or memory force it to."""
        efficient = self.work.flops / (self.cluster.count * self.cluster.gpu.flops * self.efficiency)
        return max(efficient, self.work.lower_bound)

    @property
    def hours(self) -> float:
        return self.steps * self.seconds / 3600


class StagePlanner:
    """Plans of one stage under different choices; what is traced is traced once.

    Args:
        model: the whole model on the meta device; it becomes what the stage trains.
    """

    def __init__(
        self, model: VARGPT, stage: Stage, settings: PlanConfig, cluster: Cluster, precision: str, nodes: int = 1
    ) -> None:
        self.config: VARGPTConfig = model.config
        self.stage, self.settings, self.cluster, self.precision = stage, settings, cluster, precision
        self.nodes = nodes
        prepare_model(model, stage)
        self.parameters = {name: (tuple(each.shape), each.requires_grad) for name, each in model.named_parameters()}
        self.groups = groups_of(self.parameters, [name for name in named_blocks(model) if name])
        self.buffers = sum(each.numel() * each.element_size() for each in model.buffers())
        packed = [each for layer in low_bit_layers(model).values() for each in layer.buffers()]
        copied = copied_parts(model, stage) if stage.grpo and stage.grpo.kl else []
        self.copied = sum(each.numel() for part in copied for each in part.parameters())
        self.low_bits = sum(each.numel() * each.element_size() for each in packed)
        self.states = _states(model, stage)
        self.assumed: list[str] = []
        self.rows = self._rows()
        half, mixed = not precision.startswith("32"), precision.endswith("mixed")
        computed = torch.bfloat16 if half else torch.float32
        self.traces = StageTraces(self.config, stage, computed, torch.float32 if mixed else None)

    @property
    def trained(self) -> int:
        return sum(group.count(trained=True) for group in self.groups)

    def plan(self, choice: Choice) -> StagePlan:
        """Return the plan of a choice."""
        work = self.work(choice)
        layout = self.layout(choice)
        memory = max((self.memory(choice, layout, row) for row in self._worst_rows()), key=lambda each: each.peak)
        return StagePlan(
            self.stage,
            choice,
            layout,
            memory,
            work,
            total_steps(self.stage, self.settings, self.cluster.count, choice, work.samples),
            self.cluster,
            self.settings.efficiency,
            self.trained,
            self.low_bits,
            self.assumed,
        )

    def peak(self, choice: Choice) -> int:
        """Return the bytes that a rank needs at most."""
        layout = self.layout(choice)
        return max(self.memory(choice, layout, row).peak for row in self._worst_rows())

    def layout(self, choice: Choice) -> Layout:
        """Return how a rank keeps the model under a choice."""
        sharding, world = choice.sharding, self.cluster.count
        replicas = sharding.replicas
        if replicas == "nodes":
            replicas = max(1, -(-world // self.cluster.per_node))
        mixed, half = self.precision.endswith("mixed"), not self.precision.startswith("32")
        stored = 2 if half and not mixed else 4
        return Layout(
            strategy=choice.strategy,
            shards=max(1, world // int(replicas)) if choice.strategy in SHARDED else 1,
            stored=stored,
            computed=2 if half else 4,
            reduced=4 if mixed else stored,
            reshard=sharding.reshard,
            offload=sharding.offload,
            whole_gradients=not sharding.sync_every_batch,
            accumulate=choice.accumulate,
            states=self.states,
            average=self.stage.ema is not None,
        )

    def memory(self, choice: Choice, layout: Layout, row: RowShape) -> Memory:
        """Return the memory of a rank whose batch has rows of one shape."""
        trace = self.traces.at(row, self._count(choice, row), choice.sharding)
        timeline = lay_out(trace, self.groups, layout)
        timeline.kinds["parameters"] += self.buffers + self.copied * layout.stored
        at_peak = timeline.at_peak()
        moving = sum(at_peak[kind] for kind in ("activations", "temporaries", "gathered"))
        communication = COMMUNICATION if self.cluster.count > 1 else 0
        return Memory(timeline, row, CONTEXT, communication, int(FRAGMENTS * moving))

    def work(self, choice: Choice) -> Work:
        """Return the mean work of a step, the corpora weighted as the stage's mixture is."""
        samples = 0.0
        sums = dict.fromkeys(("flops", "model_flops", "tokens", "image_tokens", "seconds"), 0.0)
        gpu = self.cluster.gpu
        for row, share in self._mean_rows().items():
            count = self._count(choice, row)
            trace = self.traces.at(row, count, choice.sharding)
            batches = share * choice.accumulate * self.cluster.count
            samples += batches * count
            sums["flops"] += batches * trace.flops
            sums["model_flops"] += batches * trace.model_flops
            passed = batches * count * (2 if self.stage.head in PREFERENCES else 1)  # both answers, or both prompts
            sums["tokens"] += passed * self._length(row)
            sums["image_tokens"] += passed * row.drawn * drawn_tokens(self.config)
            sums["seconds"] += share * choice.accumulate * lower_bound(trace, gpu.flops, gpu.bandwidth)
        flops, model_flops, tokens, image_tokens, seconds = sums.values()
        return Work(flops, model_flops, tokens, image_tokens, samples, seconds)

    def _count(self, choice: Choice, row: RowShape) -> int:
        """Rows of a batch: the stage's number, or as many as its tokens allow."""
        if self.stage.max_tokens is None:
            return choice.batch_size
        tokens = self.stage.max_tokens * choice.batch_size // self.stage.batch_size
        return max(1, tokens // self._length(row))

    def _length(self, row: RowShape) -> int:
        alone = self.stage.head == "tokenizer" or (self.stage.decoder_alone and row.drawn)
        return row.drawn * drawn_tokens(self.config) if alone else row.length(self.config)

    def _rows(self) -> dict[str, tuple[RowShape, RowShape, float]]:
        """Mean row, longest row and share of each corpus of the stage."""
        shares: dict[str, float] = {}
        found = {}
        for name, weight in self.stage.data.items():
            if weight <= 0:
                continue
            shape = self.settings.corpora.get(name) or self._guess(name)
            shares[name] = weight * (shape.samples if self.stage.mixture == "passes" else 1)
            trained = shape.text // 2 if shape.trained is None else shape.trained
            mean = RowShape(shape.text, trained, shape.seen, shape.drawn)
            longest = shape.longest or 4 * shape.text
            room = self.config.language.max_positions - (mean.length(self.config) - shape.text)
            longest = max(shape.text, min(longest, room))
            found[name] = (mean, replace(mean, text=longest, trained=max(trained, longest * trained // shape.text)))
        total = sum(shares.values())
        return {name: (*rows, shares[name] / total) for name, rows in found.items()}

    def _guess(self, name: str) -> CorpusShape:
        draws = self.stage.head in ("generation", "grpo", "cca", "tokenizer") or self.stage.decoder_alone
        seen = 0 if draws or self.config.vision.kind == "none" else 1
        shape = CorpusShape(samples=1, text=32, seen=seen, drawn=int(draws))
        self.assumed.append(f"{name}: {shape.text} text tokens, {'a drawn' if draws else 'a seen'} picture a record")
        return shape

    def _mean_rows(self) -> Mapping[RowShape, float]:
        shares: dict[RowShape, float] = {}
        for mean, _, share in self.rows.values():
            shares[mean] = shares.get(mean, 0.0) + share
        return shares

    def _worst_rows(self) -> Sequence[RowShape]:
        """The longest row of each kind of pictures."""
        longest: dict[tuple[int, int], RowShape] = {}
        for _, worst, _ in self.rows.values():
            kind = (worst.seen, worst.drawn)
            if kind not in longest or longest[kind].text < worst.text:
                longest[kind] = worst
        return list(longest.values())


def model_flops_per_sample(config: VARGPTConfig, stage: Stage, settings: PlanConfig) -> float:
    """Return the mean floating-point operations that training on one sample needs, repeated ones not counted."""
    with torch.random.fork_rng(devices=[]):  # a run's random numbers are not for planning
        with torch.device("meta"):
            model = VARGPT(config)
        planner = StagePlanner(model, stage, settings, Cluster(1, next(iter(catalogue().values()))), "bf16-true")
        work = planner.work(Choice("single", ShardingConfig(), stage.batch_size, stage.accumulate))
    return work.model_flops / work.samples


def lower_bound(trace: Trace, flops: float, bandwidth: float) -> float:
    """Return the seconds of a trace if each operation took no longer than arithmetic or memory force it to."""
    return float(np.maximum(trace.flops_R / flops, trace.moved_R / bandwidth).sum())


def _states(model: VARGPT, stage: Stage) -> float:
    """Elements of the optimizer's states for each trained one: two for AdamW, one for Muon's matrices."""
    counts = [
        (1 if group.get("muon") else 2, sum(each.numel() for each in group["params"]))
        for group in parameter_groups(model, stage.optimizer)
    ]
    return sum(states * count for states, count in counts) / sum(count for _, count in counts)


def total_steps(stage: Stage, settings: PlanConfig, ranks: int, choice: Choice, samples: float) -> int:
    """Return the stage's optimizer steps; `samples` are those of a step.

    Raises:
        UserError: the stage is counted in epochs over data of unknown size.
    """
    if stage.steps is not None:
        return stage.steps
    names = [name for name, weight in stage.data.items() if weight > 0]
    if missing := [name for name in names if name not in settings.corpora]:
        raise UserError(
            f"stages.{stage.name}: how many samples {missing[0]} has is not known; expected plan.corpora.{missing[0]} "
            "with samples and text"
        )
    sizes = {name: settings.corpora[name].samples for name in names}
    if stage.max_tokens is None:
        return replace(stage, batch_size=choice.batch_size, accumulate=choice.accumulate).total_steps(sizes, ranks)
    assert stage.epochs is not None
    by_mixture: dict[str, Mapping[str, float]] = {
        "weights": sizes,
        "counts": stage.data,
        "passes": {name: stage.data[name] * sizes[name] for name in names},
    }
    return max(1, round(stage.epochs * sum(by_mixture[stage.mixture][name] for name in names) / samples))


def as_json(plan: StagePlan) -> dict[str, Any]:
    """Return a plan as plain values; bytes, FLOPs, seconds."""
    memory, work = plan.memory, plan.work
    operation, size = memory.largest_operation
    return {
        "stage": plan.stage.name,
        "strategy": plan.choice.strategy,
        "checkpointing": plan.choice.sharding.checkpointing,
        "offload": plan.choice.sharding.offload,
        "batch_size": plan.choice.batch_size,
        "accumulate": plan.choice.accumulate,
        "trained_parameters": plan.trained,
        "memory": {
            "peak": memory.peak,
            "moment": memory.timeline.moment,
            "at_peak": memory.timeline.at_peak(),
            "low_bits": plan.low_bits,
            "context": memory.context,
            "communication": memory.communication,
            "fragments": memory.fragments,
            "kernel_cache": memory.kernel_cache,
            "largest_operation": {"name": operation, "bytes": size},
            "host": memory.timeline.host,
            "text_tokens_of_longest_row": memory.row.text,
        },
        "fits": plan.fits,
        "flops_per_step": work.flops,
        "model_flops_per_step": work.model_flops,
        "tokens_per_step": work.tokens,
        "image_tokens_per_step": work.image_tokens,
        "samples_per_step": work.samples,
        "seconds_per_step": plan.seconds,
        "seconds_per_step_at_least": work.lower_bound,
        "efficiency": plan.efficiency,
        "steps": plan.steps,
        "hours": plan.hours,
        "gpu_hours": plan.hours * plan.cluster.count,
        "assumed": plan.assumed,
        "ways_to_fit": [{"changes": changes, "peak": peak} for changes, _, peak in plan.ways],
    }
