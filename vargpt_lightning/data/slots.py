"""Memory that worker processes and the training process share, used again and again for the pictures of batches.

A worker writes a batch's large tensors into a free slot and sends only where they are. The slot is free again as soon
as nothing in the training process holds any of these tensors: it is never waited for, nor written while it is read.
What finds no free slot, or no room, goes torch's way, which makes and unmakes a file in shared memory for each tensor.
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

SLOT_BYTES = 2**26  # of address space: memory is taken only where something is written
SMALL = 2**18  # bytes of a tensor that travels in a message as well
_FREE, _USED = 0, 1
_ALIGNED = 64

Parts = Mapping[str, tuple[int, tuple[int, ...], torch.dtype]]  # name to offset, shape and type


class Ring:
    """`each` slots for each of some workers. Made before they are forked; started otherwise, a worker has none."""

    _numbers: ClassVar[Iterator[int]] = itertools.count()
    _known: ClassVar[weakref.WeakValueDictionary[int, Ring]] = weakref.WeakValueDictionary()

    def __init__(self, workers: int, each: int) -> None:
        self.number, self.each = next(self._numbers), each
        self._flags: Any = mmap.mmap(-1, workers * each)
        self._memory: Any = [mmap.mmap(-1, SLOT_BYTES) for _ in range(workers * each)]
        self._known[self.number] = self

    @classmethod
    def known(cls, number: int) -> Ring:
        """Return this process's ring of a number."""
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
    """A worker's side: `stack` for the pictures of a batch, then `sent` for what is to be sent in their place."""

    def __init__(self, ring: Ring, worker: int) -> None:
        self._ring, self._worker = ring, worker
        self._slot: int | None = None
        self._used = 0
        self._made: dict[int, tuple[int, tuple[int, ...], torch.dtype]] = {}
        self._bytes: dict[int, Tensor] = {}

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the tensors as one, as torch.stack does, in a slot where there is room."""
        shape, dtype = (len(tensors), *tensors[0].shape), tensors[0].dtype
        size = math.prod(shape) * dtype.itemsize
        if size <= SMALL or self._used + size > SLOT_BYTES:
            return torch.stack(list(tensors))
        if self._slot is None:
            self._slot = self._ring.take(self._worker)
            if self._slot is None:
                return torch.stack(list(tensors))
        if self._slot not in self._bytes:
            self._bytes[self._slot] = torch.from_numpy(self._ring.bytes_of(self._slot))
        result = self._bytes[self._slot][self._used : self._used + size].view(dtype).view(shape)
        torch.stack(list(tensors), out=result)
        self._made[result.data_ptr()] = (self._used, shape, dtype)
        self._used += -(-size // _ALIGNED) * _ALIGNED
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
        self._slot, self._used = None, 0
        self._made.clear()
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
    lease, ring = Lease(number, slot, parts), Ring.known(number)
    memory = ring.bytes_of(slot)
    # every tensor made of it holds on to this array, by its storage
    weakref.finalize(memory, ring.free, slot).atexit = False
    whole = torch.from_numpy(memory)
    for name, (offset, shape, dtype) in parts.items():
        size = math.prod(shape) * dtype.itemsize
        lease.tensors[name] = whole[offset : offset + size].view(dtype).view(shape)
    return lease


_writer: Writer | None = None


def begin(ring: Ring, worker: int) -> None:
    """Let this process, a worker, write into its slots of the ring."""
    global _writer
    _writer = Writer(ring, worker)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Return the tensors as one: in a worker where it need not be copied to be sent."""
    return _writer.stack(tensors) if _writer else torch.stack(list(tensors))


def sent(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Lease | None]:
    """Return what is to be sent of a batch, and what stands for the rest (see `Writer.sent`)."""
    return _writer.sent(batch) if _writer else (dict(batch), None)
