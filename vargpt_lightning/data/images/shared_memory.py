"""Shared-memory ring buffer: batches' pictures go from worker processes to the training process without a copy.

A worker writes a batch's large tensors into a free slot and sends only where they are; pictures are decoded there. The
slot is free again as soon as nothing in the training process holds any of these tensors: it is never waited for, nor
written while it is read. What finds no free slot, or no room, goes torch's way, which makes and unmakes a file in
shared memory for each tensor.

A slot begins with areas for pictures of two shapes, one after the other in each; behind them is what is no picture, or
was not decoded in its place.

multiprocessing.shared_memory gives named blocks that somebody has to free; whether a block is read no more, which frees
a slot here, it does not know.
"""

from __future__ import annotations

import itertools
import math
import mmap
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

SLOT_BYTES = 2**27  # of address space: memory is taken only where something is written
AREAS = 2
AREA_BYTES = 2**25
SMALL = 2**18  # bytes of a tensor that travels in a message as well, where no slot is taken
_FREE, _USED = 0, 1
# what tensors in slots are of; others go torch's way
_ARRAYS = {torch.uint8: "u1", torch.bool: "?", torch.int64: "i8", torch.float16: "f2", torch.float32: "f4"}
_ALIGNED = 64

Parts = Mapping[str, tuple[int, tuple[int, ...], torch.dtype]]  # name to offset, shape and type


class RingBuffer:
    """`each` slots for each of some workers. Made before they are forked; started otherwise, a worker has none."""

    _numbers: ClassVar[Iterator[int]] = itertools.count()
    _known: ClassVar[weakref.WeakValueDictionary[int, RingBuffer]] = weakref.WeakValueDictionary()

    def __init__(self, workers: int, each: int) -> None:
        self.number, self.each = next(self._numbers), each
        self._flags: Any = mmap.mmap(-1, workers * each)
        self._memory: Any = [mmap.mmap(-1, SLOT_BYTES) for _ in range(workers * each)]
        self._known[self.number] = self

    @classmethod
    def known(cls, number: int) -> RingBuffer:
        """Return this process's buffer of a number."""
        return cls._known[number]

    def __getstate__(self) -> dict[str, Any]:
        return {"number": self.number, "each": 0, "_flags": b"", "_memory": []}

    def take(self, worker: int) -> int | None:
        """Return a free slot of a worker, which is free no more; None when there is none."""
        for slot in range(worker * self.each, (worker + 1) * self.each):
            if self._flags[slot] == _FREE:
                self._flags[slot] = _USED
                return slot
        return None

    def free(self, slot: int) -> None:
        """Let the slot's worker write there again."""
        self._flags[slot] = _FREE

    def used(self) -> int:
        """How many slots are not free."""
        return sum(flag == _USED for flag in self._flags[:])

    def bytes_of(self, slot: int) -> np.ndarray:
        """Return the slot's memory."""
        return np.frombuffer(self._memory[slot], np.uint8)


class Writer:
    """A worker's side: places for tensors of a batch, then `sent` for what is to be sent in their place."""

    def __init__(self, ring: RingBuffer, worker: int) -> None:
        self._ring, self._worker = ring, worker
        self._slot: int | None = None
        self.begin_batch()

    def begin_batch(self) -> None:
        """Forget what was written of a batch that was not sent."""
        self._places: dict[tuple[int, ...], list[np.ndarray]] = {}  # given for pictures of each shape, side by side
        self._used = min(AREAS * AREA_BYTES, SLOT_BYTES)
        self._made: dict[int, tuple[int, tuple[int, ...], torch.dtype]] = {}

    def picture(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return a place for the batch's next picture of a shape, uint8; None where there is none."""
        size = math.prod(shape)
        if shape not in self._places and (size <= SMALL // 4 or len(self._places) == AREAS or not self._has_slot()):
            return None
        given = self._places.setdefault(shape, [])
        if (len(given) + 1) * size > AREA_BYTES:
            return None
        first = self._area(shape) + len(given) * size
        assert self._slot is not None
        given.append(self._ring.bytes_of(self._slot)[first : first + size].reshape(shape))
        return given[-1]

    def _area(self, shape: tuple[int, ...]) -> int:
        """Where the pictures of a shape begin."""
        return list(self._places).index(shape) * AREA_BYTES

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of anything, in the batch's slot: a large one in any case, a small one if there is a slot."""
        size = math.prod(shape) * dtype.itemsize
        wanted = size > SMALL or self._slot is not None
        if not wanted or dtype not in _ARRAYS or self._used + size > SLOT_BYTES or not self._has_slot():
            return torch.empty(shape, dtype=dtype)
        first, self._used = self._used, self._used + -(-size // _ALIGNED) * _ALIGNED
        return self._note(first, shape, dtype)

    def stack(self, parts: Sequence[Tensor | np.ndarray]) -> Tensor:
        """Return tensors or arrays as one, as torch.stack does: without a copy of what lies in the slot in order."""
        shape = tuple(parts[0].shape)
        given = self._places.get(shape, ())
        # not so where pictures of both uses have one shape, or a picture with a place was then skipped
        if len(given) == len(parts) and all(one is other for one, other in zip(parts, given, strict=True)):
            return self._note(self._area(shape), (len(parts), *shape), torch.uint8)
        tensors = _tensors(parts)
        return torch.stack(tensors, out=self.empty((len(parts), *shape), tensors[0].dtype))

    def _has_slot(self) -> bool:
        if self._slot is None:
            self._slot = self._ring.take(self._worker)
        return self._slot is not None

    def _note(self, first: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        assert self._slot is not None
        result = _view(self._ring.bytes_of(self._slot), first, shape, dtype)
        self._made[result.data_ptr()] = (first, shape, dtype)
        return result

    def sent(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Lease | None]:
        """Return the batch with None for the tensors that are in the slot, and what stands for these."""
        made = {
            name: self._made[value.data_ptr()]
            for name, value in batch.items()
            if isinstance(value, Tensor) and value.data_ptr() in self._made
        }
        if not made or self._slot is None:
            return dict(batch), None
        lease = Lease(self._ring.number, self._slot, made)
        self._slot = None
        self.begin_batch()
        return {name: None if name in made else value for name, value in batch.items()}, lease


class Lease:
    """Tensors in a slot, on their way; when it and they are gone in the process that got it, the slot is free."""

    def __init__(self, ring: int, slot: int, parts: Parts) -> None:
        self._state = (ring, slot, parts)
        self.tensors: dict[str, Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._state

    def pin_memory(self, device: Any = None) -> Lease:
        """What a DataLoader calls to have the tensors where a GPU fetches them faster: they are copied."""
        self.tensors = {name: value.pin_memory() for name, value in self.tensors.items()}
        return self


def _received(number: int, slot: int, parts: Parts) -> Lease:
    lease, ring = Lease(number, slot, parts), RingBuffer.known(number)
    memory = ring.bytes_of(slot)
    # every tensor made of it holds on to this array, by its storage
    weakref.finalize(memory, ring.free, slot).atexit = False
    lease.tensors = {name: _view(memory, *part) for name, part in parts.items()}
    return lease


def _view(memory: np.ndarray, first: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in memory, by way of numpy, whose views are made in a third of the time."""
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(memory[first : first + size].view(_ARRAYS[dtype]).reshape(shape))


_writer: Writer | None = None


def begin(ring: RingBuffer, worker: int) -> None:
    """Let this process, a worker, write into its slots of the ring."""
    global _writer
    _writer = Writer(ring, worker)


def in_worker() -> bool:
    """Whether this process sends what it makes."""
    return _writer is not None


def begin_batch() -> None:
    """Let a worker write its next batch."""
    if _writer:
        _writer.begin_batch()


def picture(shape: tuple[int, ...]) -> np.ndarray | None:
    """Return where a picture (H, W, C) of uint8 is best decoded to; None: anywhere."""
    return _writer.picture(shape) if _writer else None


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of anything: in a worker where it need not be copied to be sent."""
    return _writer.empty(shape, dtype) if _writer else torch.empty(shape, dtype=dtype)


def stack(parts: Sequence[Tensor | np.ndarray]) -> Tensor:
    """Return tensors or arrays as one tensor: in a worker where it need not be copied to be sent."""
    return _writer.stack(parts) if _writer else torch.stack(_tensors(parts))


def _tensors(parts: Sequence[Tensor | np.ndarray]) -> list[Tensor]:
    return [part if isinstance(part, Tensor) else torch.from_numpy(part) for part in parts]


def sent(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Lease | None]:
    """Return what is to be sent of a batch, and what stands for the rest (see `Writer.sent`)."""
    return _writer.sent(batch) if _writer else (dict(batch), None)
