"""The account of a training step, operation by operation: what is alive, what is computed, where in the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

CATEGORIES = ("inputs", "activations", "temporaries", "gradients", "optimizer")
"""Kinds of tensors that a step makes; parameters and buffers stand before it."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Mark:
    """A boundary before row `row`: `what` is forward, end_forward, backward or end_backward of a block, or a phase."""

    row: int
    what: str
    name: str = ""


@dataclass
class Trace:
    """One step; rows are operations.

    Attributes:
        changes_RK: bytes that each operation adds to each category, less those that it lets go (R rows, K categories).
        flops_R, moved_R: floating-point operations, and bytes read and written.
        workspace_R: bytes that a kernel takes for itself while it runs.
        recomputed_R: whether the operation repeats one of the forward pass.
        marks: boundaries in their order.
        gradients: (row, name): when a parameter's gradient was made.
        operations: the name of each row's operation.
    """

    changes_RK: Integers
    flops_R: Integers
    moved_R: Integers
    workspace_R: Integers
    recomputed_R: NDArray[np.bool_]
    marks: list[Mark] = field(default_factory=list)
    gradients: list[tuple[int, str]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)

    @property
    def live_RK(self) -> Integers:
        """Bytes alive after each operation."""
        return self.changes_RK.cumsum(0)

    def category(self, name: str) -> Integers:
        """Bytes of one category alive after each operation (R,)."""
        alive: Integers = self.changes_RK[:, CATEGORIES.index(name)].cumsum()
        return alive

    @property
    def flops(self) -> int:
        """Floating-point operations of the whole step, repeated ones too."""
        return int(self.flops_R.sum())

    @property
    def model_flops(self) -> int:
        """Floating-point operations that the step needs; what checkpointing repeats is not among them."""
        return int(self.flops_R[~self.recomputed_R].sum())

    @property
    def peak(self) -> int:
        """The most bytes alive at once, kernels' own included, without parameters and buffers."""
        return int((self.live_RK.sum(1) + self.workspace_R).max())

    def rows_of(self, what: str, name: str) -> list[int]:
        """Rows before which a boundary stands."""
        return [mark.row for mark in self.marks if mark.what == what and mark.name == name]

    def place(self, row: int) -> str:
        """Say where in the step a row lies: the phase, and the innermost block whose pass has begun and not ended."""
        phase, inside = "", list[str]()
        for mark in self.marks:
            if mark.row > row:
                break
            if mark.what == "phase":
                phase, inside = mark.name, []
            elif mark.what in ("forward", "backward"):
                inside.append(mark.name)
            elif mark.name in inside:
                inside.remove(mark.name)
        if not inside:
            return phase
        tower, _, index = inside[-1].rpartition(".")
        return f"{phase}, {tower.split('.')[0]} {index}".rstrip() if tower else f"{phase}, {index}"


def extrapolated(low: Trace, high: Trace, low_size: int, high_size: int, size: int) -> Trace:
    """Return the trace of a batch of `size` from those of two other sizes: every row is linear in the batch.

    Raises:
        ValueError: the two traces have other operations.
    """
    if low.operations != high.operations:
        raise ValueError(f"{len(low.operations)} and {len(high.operations)} operations; expected the same ones")

    def line(one: Integers, two: Integers) -> Integers:
        return one + (two - one) * (size - low_size) // (high_size - low_size)

    return replace(
        low,
        changes_RK=line(low.changes_RK, high.changes_RK),
        flops_R=line(low.flops_R, high.flops_R),
        moved_R=line(low.moved_R, high.moved_R),
        workspace_R=line(low.workspace_R, high.workspace_R),
    )


def deepened(trace: Trace, tower: str, depth: int, period: int = 1) -> Trace:
    """Return the trace of a deeper tower, by repeating what `period` blocks in its middle do.

    Blocks are named `tower.index`. The first keeps its own rows, and so do those behind the repeated ones; blocks that
    are a multiple of the period apart do the same as each other, forward and backward.

    Args:
        depth: blocks of the deeper tower; the difference is a multiple of the period.

    Raises:
        ValueError: the trace has too few blocks, or the difference is no multiple.
    """
    names = [mark.name for mark in trace.marks if mark.what == "forward" and mark.name.rpartition(".")[0] == tower]
    have = len(dict.fromkeys(names))
    if have in (0, depth):
        return trace
    copies, rest = divmod(depth - have, period)
    if copies < 0 or rest or have < period + 2:
        raise ValueError(f"{tower}: {have} blocks cannot stand for {depth}, {period} at a time")
    return _Deeper(trace, tower, period, copies).made()


class _Deeper:
    """The pieces of a deeper trace: runs of rows of the shallow one, some of them several times."""

    def __init__(self, trace: Trace, tower: str, period: int, copies: int) -> None:
        self.trace, self.tower, self.period, self.copies = trace, tower, period, copies
        self.pieces: list[Integers] = []
        self.marks: list[Mark] = []
        self.gradients: list[tuple[int, str]] = []
        self.length = 0

    def made(self) -> Trace:
        passes, backward = self._repeated()
        end, at = len(self.trace.operations), 0
        for first, begin, until in passes:
            self._take(at, first, self.copies * self.period)  # behind a pass it speaks of its last copy
            self._take(first, begin, 0)
            for copy in range(self.copies + 1):
                self._take(begin, until, copy * self.period)
            at = until
        if backward is None:
            self._take(at, end, self.copies * self.period, last=True)
        else:
            self._take(at, backward[0], self.copies * self.period)
            for copy in range(self.copies, -1, -1):
                self._take(*backward, copy * self.period)
            self._take(backward[1], end, 0, last=True)
        rows = np.concatenate(self.pieces)
        trace = self.trace
        return Trace(
            trace.changes_RK[rows],
            trace.flops_R[rows],
            trace.moved_R[rows],
            trace.workspace_R[rows],
            trace.recomputed_R[rows],
            self.marks,
            self.gradients,
            [trace.operations[row] for row in rows],
        )

    def _repeated(self) -> tuple[list[tuple[int, int, int]], tuple[int, int] | None]:
        """Rows of the blocks 1 to `period`: in the backward pass, where there is one, and in each forward pass, behind
        the row at which the pass begins.

        There are several where a step passes through a frozen copy as well.
        """
        trace, tower, period = self.trace, self.tower, self.period
        found = (trace.rows_of("forward", f"{tower}.{index}") for index in (0, 1, 1 + period))
        begun, ended = trace.rows_of("backward", f"{tower}.{period}"), trace.rows_of("backward", f"{tower}.0")
        return list(zip(*found, strict=True)), (begun[0], ended[0]) if begun and ended else None

    def _take(self, low: int, high: int, shift: int, last: bool = False) -> None:
        offset = self.length - low
        for mark in self.trace.marks:
            if low <= mark.row < high or (last and mark.row >= high):
                self.marks.append(Mark(mark.row + offset, mark.what, self._renamed(mark.name, shift)))
        for row, name in self.trace.gradients:
            if low <= row < high or (last and row >= high):
                self.gradients.append((row + offset, self._renamed(name, shift)))
        self.pieces.append(np.arange(low, high))
        self.length += high - low

    def _renamed(self, name: str, shift: int) -> str:
        """The name with its block's index shifted; the first block keeps it."""
        index, _, rest = name.removeprefix(f"{self.tower}.").partition(".")
        if not name.startswith(f"{self.tower}.") or not index.isdigit() or (index == "0" and shift == 0):
            return name
        # the end of the block before stands where a copy begins
        return ".".join(part for part in (self.tower, str(int(index) + shift), rest) if part)
