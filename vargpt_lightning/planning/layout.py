"""Parameters, gradients and optimizer states of one rank over a step, laid over the trace of the step's activations.

The rules of sharding are those of torch's FSDP2 (torch.distributed.fsdp._fully_shard): dimension 0 of each parameter is
cut and padded; a group is gathered into one buffer and copied out of it; in the forward pass the buffer lives until the
next group's copy, in the backward pass the next group is gathered ahead; gradients are reduced from one buffer a group,
which lives until the next group's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vargpt_lightning.planning.trace import Integers, Trace

KINDS = ("parameters", "gathered", "gradients", "optimizer", "average", "activations", "temporaries", "inputs")
SHARDED = ("fsdp", "fsdp2")


@dataclass(frozen=True)
class Tensors:
    """A parameter's size: rows of dimension 0, elements of a row, whether it is trained."""

    name: str
    rows: int
    width: int
    trained: bool

    @property
    def count(self) -> int:
        return self.rows * self.width

    def part(self, shards: int) -> int:
        """Elements that the first rank holds, padding included."""
        return math.ceil(self.rows / shards) * self.width


@dataclass
class Group:
    """Parameters that are gathered together: a block's, or all that belong to no block."""

    name: str
    parameters: list[Tensors] = field(default_factory=list)

    def count(self, trained: bool | None = None) -> int:
        return sum(each.count for each in self.parameters if trained in (None, each.trained))

    def part(self, shards: int, trained: bool | None = None) -> int:
        return sum(each.part(shards) for each in self.parameters if trained in (None, each.trained))


@dataclass(frozen=True)
class Layout:
    """How a rank keeps the model.

    Args:
        strategy: single, ddp, fsdp or fsdp2.
        shards: ranks that a parameter is spread over.
        stored, computed, reduced: bytes of an element of kept weights, of weights computed with, of reduced gradients.
        reshard: gathered weights go after a block's forward pass.
        offload: kept weights, gradients and optimizer states are in the CPU's memory.
        whole_gradients: gradients are reduced after the last of several batches, and kept whole until then.
        accumulate: batches a step.
        states: elements of the optimizer's states for each element that is trained.
        average: keep a moving average in 32 bits.
    """

    strategy: str = "single"
    shards: int = 1
    stored: int = 4
    computed: int = 4
    reduced: int = 4
    reshard: bool = True
    offload: bool = False
    whole_gradients: bool = False
    accumulate: int = 1
    states: float = 2.0
    average: bool = False

    @property
    def sharded(self) -> bool:
        return self.strategy in SHARDED and self.shards > 1


@dataclass
class Timeline:
    """Bytes of each kind on one rank after each operation (R,), and what is kept in the host's memory."""

    kinds: dict[str, Integers]
    trace: Trace
    host: int = 0

    @property
    def total_R(self) -> Integers:
        total: Integers = np.sum(list(self.kinds.values()), axis=0) + self.trace.workspace_R
        return total

    @property
    def peak_row(self) -> int:
        return int(self.total_R.argmax())

    @property
    def peak(self) -> int:
        return int(self.total_R.max())

    @property
    def moment(self) -> str:
        """Where in the step the peak is."""
        return self.trace.place(self.peak_row)

    def at_peak(self) -> dict[str, int]:
        """Bytes of each kind at the peak."""
        return {kind: int(values[self.peak_row]) for kind, values in self.kinds.items()}


def groups_of(parameters: Mapping[str, tuple[Sequence[int], bool]], blocks: Sequence[str]) -> list[Group]:
    """Sort parameters (name to shape and whether it is trained) into their blocks' groups; the last is the rest."""
    groups = {name: Group(name) for name in [*blocks, ""]}
    for name, (shape, trained) in parameters.items():
        parts = name.split(".")
        prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        owner = next((prefix for prefix in prefixes if prefix in groups), "")
        rows = shape[0] if shape else 1
        groups[owner].parameters.append(Tensors(name, rows, math.prod(shape[1:]), trained))
    return [group for group in groups.values() if group.parameters]


def lay_out(trace: Trace, groups: Sequence[Group], layout: Layout) -> Timeline:
    """Return what a rank holds over the step."""
    rows = len(trace.operations)
    kinds = {kind: np.zeros(rows, dtype=np.int64) for kind in KINDS}
    for kind in ("activations", "temporaries", "inputs"):
        kinds[kind] += trace.category(kind)
    shards = layout.shards if layout.sharded else 1
    kept = sum(group.part(shards) for group in groups) * layout.stored
    trained = sum(group.part(shards, trained=True) for group in groups)
    states = int(trained * layout.states) * layout.stored
    average = trained * 4 if layout.average else 0
    host = 0
    if layout.sharded and layout.offload:
        host = kept + states + average + trained * layout.stored
    else:
        kinds["parameters"] += kept
        kinds["optimizer"] += states
        kinds["average"] += average
    steps = _Steps(trace)
    if layout.sharded:
        _gather(kinds["gathered"], steps, groups, layout)
    elif layout.computed < layout.stored:
        kinds["gathered"] += sum(group.count() for group in groups) * layout.computed  # autocast keeps what it cast
    _add_gradients(kinds["gradients"], steps, groups, layout)
    return Timeline(kinds, trace, host)


class _Steps:
    """Where the phases and the blocks' passes lie among the rows."""

    def __init__(self, trace: Trace) -> None:
        self.rows = len(trace.operations)
        self.phases = {mark.name: mark.row for mark in trace.marks if mark.what == "phase"}
        self.backward = self.phases.get("backward", self.rows)
        self.optimizer = self.phases.get("optimizer", self.rows)
        self.firsts: dict[tuple[str, str], int] = {}
        self.lasts: dict[tuple[str, str], int] = {}
        for mark in trace.marks:
            self.firsts.setdefault((mark.what, mark.name), mark.row)
            self.lasts[(mark.what, mark.name)] = mark.row
        self.gradients = dict((name, row) for row, name in trace.gradients)
        self.order = sorted((row, name) for (what, name), row in self.firsts.items() if what == "backward" and name)

    def forward_of(self, name: str) -> tuple[int, int] | None:
        begin = self.firsts.get(("forward", name))
        return None if begin is None else (begin, self.lasts.get(("end_forward", name), begin))

    def backward_of(self, group: Group) -> tuple[int, int] | None:
        """Rows of a block's backward pass; without gradients of its inputs it ends with its parameters' last."""
        begin = self.firsts.get(("backward", group.name))
        if begin is None:
            return None
        own = [self.gradients[each.name] for each in group.parameters if each.name in self.gradients]
        following = next((row for row, _ in self.order if row > begin), self.optimizer)
        end = self.lasts.get(("end_backward", group.name)) or max([*own, begin]) or following
        return begin, max(end, begin)


def _gather(gathered_R: Integers, steps: _Steps, groups: Sequence[Group], layout: Layout) -> None:
    """Add gathered weights: a group's own, and the buffer that it or the group ahead is gathered in."""
    order = [name for _, name in steps.order]
    sizes = {group.name: group.part(layout.shards) * layout.shards * layout.computed for group in groups}
    first_block = min([row for (what, name), row in steps.firsts.items() if what == "forward"], default=0)
    for group in groups:
        size = sizes[group.name]
        if group.name == "":  # never given back before the end of the backward pass
            gathered_R[: steps.optimizer] += size
            continue
        if group.name == "image_tokenizer":
            gathered_R[:first_block] += size
            continue
        forward, backward = steps.forward_of(group.name), steps.backward_of(group)
        if forward:
            end = forward[1] if layout.reshard else (backward[1] if backward else steps.optimizer)
            gathered_R[forward[0] : end] += size
            gathered_R[forward[0] : forward[1]] += size
        if backward and layout.reshard:
            gathered_R[backward[0] : backward[1]] += size
            place = order.index(group.name)
            if place + 1 < len(order):
                gathered_R[backward[0] : backward[1]] += sizes.get(order[place + 1], 0)


def _add_gradients(gradients_R: Integers, steps: _Steps, groups: Sequence[Group], layout: Layout) -> None:
    """Add the gradients of the step before, which live until the backward pass begins, and those it makes."""
    whole = layout.whole_gradients and layout.accumulate > 1
    kept_on_device = not (layout.sharded and layout.offload)
    for group in groups:
        if not group.count(trained=True):
            continue
        if not layout.sharded or whole:
            size = layout.reduced if layout.sharded else layout.stored
            for each in group.parameters:
                if each.trained:
                    made = steps.gradients.get(each.name, steps.optimizer)
                    _old_and_new(gradients_R, steps, made, each.count * size, layout.accumulate)
        if not layout.sharded:
            if layout.strategy == "ddp":
                gradients_R += group.count(trained=True) * layout.stored  # the buckets that are reduced
            continue
        rows = [steps.gradients[each.name] for each in group.parameters if each.name in steps.gradients]
        backward = steps.backward_of(group)
        end = backward[1] if backward and group.name else steps.optimizer
        end = max([end, *rows])
        for each in group.parameters:
            if each.trained and each.name in steps.gradients and not whole:
                gradients_R[steps.gradients[each.name] : end] += each.count * layout.computed
        if not whole:
            following = next((row for row, _ in steps.order if row > end), steps.optimizer)
            after = max(end + 1, steps.firsts.get(("end_backward", _name_at(steps, following)), following))
            gradients_R[end:after] += group.count(trained=True) * layout.reduced
        if kept_on_device:
            part = group.part(layout.shards, trained=True) * layout.stored
            _old_and_new(gradients_R, steps, end, part, layout.accumulate)


def _name_at(steps: _Steps, row: int) -> str:
    return next((name for begin, name in steps.order if begin == row), "")


def _old_and_new(gradients_R: Integers, steps: _Steps, made: int, size: int, accumulate: int) -> None:
    if accumulate > 1:
        gradients_R += size
        return
    gradients_R[: steps.backward] += size
    gradients_R[made:] += size
