"""The smallest changes that make a stage fit: sharding, checkpointing, batch with accumulation, offload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from vargpt_lightning.planning.layout import SHARDED
from vargpt_lightning.planning.stage_plan import Choice, StagePlanner

CHECKPOINTING = ("none", "every_2", "selective", "full")
"""From the most memory to the least, which is also from the fastest to the slowest."""
SLOWER = {"none": 1.0, "every_2": 1.17, "selective": 1.15, "full": 1.33}
"""Rough factors on a step's time, to sort what fits (ours): full repeats one forward pass of three passes' work."""
WAYS = 3

Way = tuple[list[str], Choice, int]


def ways_to_fit(planner: StagePlanner, start: Choice) -> list[Way]:
    """Return up to three choices that fit with the fewest changes, then the least time: changes, choice, peak bytes."""
    limit = planner.cluster.gpu.memory
    found: list[tuple[int, float, Way]] = []
    fewest = None
    for count, slower, changes, choice in sorted(_candidates(planner, start), key=lambda each: each[:2]):
        if fewest is not None and count > fewest and len(found) >= 1:
            break
        peak = planner.peak(choice)
        if peak <= limit:
            fewest = count if fewest is None else fewest
            found.append((count, slower, (changes, choice, peak)))
        if len(found) == WAYS:
            break
    return [way for _, _, way in found]


def _candidates(planner: StagePlanner, start: Choice) -> Iterator[tuple[int, float, list[str], Choice]]:
    """Every change of the choice: how many settings it changes, about how much slower it is, in words, the choice."""
    for strategy, mode, halvings, offload, each in product(
        _strategies(planner, start), _modes(start), _halvings(start), (False, True), (False, True)
    ):
        sharded = strategy in SHARDED
        batch, accumulate = start.batch_size >> halvings, start.accumulate << halvings
        if ((offload or each) and not sharded) or (offload and start.sharding.offload):
            continue
        if each and (start.sharding.sync_every_batch or accumulate == 1 or strategy != "fsdp2"):
            continue
        changes = []
        if strategy != start.strategy:
            changes.append(f"trainer.strategy: {strategy}")
        if mode != start.sharding.checkpointing:
            changes.append(f"trainer.sharding.checkpointing: {mode}")
        if halvings:
            changes.append(f"batch_size: {batch}, accumulate: {accumulate}")
        if each:
            changes.append("trainer.sharding.sync_every_batch: true")
        if offload:
            changes.append("trainer.sharding.offload: true")
        if not changes:
            continue
        slower = SLOWER.get(mode, 1.2) * (1 + 0.03 * halvings) * (1.5 if offload else 1.0) * (1.02 if each else 1.0)
        sharding = replace(
            start.sharding,
            checkpointing=mode,
            offload=offload or start.sharding.offload,
            sync_every_batch=each or start.sharding.sync_every_batch,
        )
        yield len(changes), slower, changes, Choice(strategy, sharding, batch, accumulate)


def _strategies(planner: StagePlanner, start: Choice) -> tuple[str, ...]:
    if planner.cluster.count == 1 or start.strategy in SHARDED:
        return (start.strategy,)
    return (start.strategy, "fsdp2")


def _modes(start: Choice) -> tuple[str, ...]:
    mode = start.sharding.checkpointing
    place = CHECKPOINTING.index(mode) if mode in CHECKPOINTING else 1
    return tuple(dict.fromkeys((mode, *CHECKPOINTING[place + 1 :])))


def _halvings(start: Choice) -> range:
    return range(start.batch_size.bit_length() if start.batch_size & (start.batch_size - 1) == 0 else 2)
