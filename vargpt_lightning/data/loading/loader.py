"""Batches read ahead by worker processes that know nothing but which records a batch is made of.

The sampler alone decides what comes when, so nothing that workers hold, or lose when they are killed, matters to what
a run goes on with.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vargpt_lightning.data.images import shared_memory
from vargpt_lightning.data.images.shared_memory import RingBuffer
from vargpt_lightning.data.loading.readers import Readers
from vargpt_lightning.data.mixing.mixture import Mixture, Place
from vargpt_lightning.data.packing.pool import end_with_parent
from vargpt_lightning.utils.errors import UserError

_LEASE = "."  # the name in a message of what is not in it
_HELD = 3  # batches that the training process has at once


class Unsized:
    """A batch sampler without a length: with one, Lightning would end a resumed stage too early."""

    def __init__(self, sampler: Sampler[list[Place]]) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)


class StreamLoader(DataLoader[Any]):
    """A DataLoader in which the user's mistakes stay one line, also when a worker process finds them."""

    ring: RingBuffer | None = None

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise UserError(batch.told)
            yield _received(batch) if isinstance(batch, dict) else batch
            del batch  # or its memory would not be free before the next one is there

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        # new workers have new slots: nobody gives back what the old ones had sent and nobody took
        self.ring = RingBuffer(self.num_workers, (self.prefetch_factor or 0) + _HELD)
        begin = partial(_begin, self.ring)
        if multiprocessing.get_start_method() == "fork" and not self.pin_memory:
            return _Ahead(self, begin)
        self.worker_init_fn = begin
        return super()._get_iterator()


class _Ahead(Readers):
    """What a `StreamLoader` takes from forked workers where no thread is needed to pin memory."""

    def __init__(self, loader: StreamLoader, begin: Callable[[int], None]) -> None:
        # as torch's iterators do: the numbers that are drawn later stay the same
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        dataset, collate = loader.dataset, loader.collate_fn
        super().__init__(
            lambda places: collate(dataset.__getitems__(places)),  # type: ignore[attr-defined]
            loader.batch_sampler,  # type: ignore[arg-type]
            loader.num_workers,
            loader.prefetch_factor or 1,
            begin,
        )

    def _reset(self, loader: StreamLoader) -> None:
        self.restart(loader.batch_sampler)  # type: ignore[arg-type]


def stream_loader(
    mixture: Mixture,
    sampler: Sampler[list[Place]],
    collate: Callable[[Sequence[Any]], Any],
    *,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool | None = None,
) -> StreamLoader:
    """Return a loader of the sampler's batches; the settings are those of `Corpora`, and change no batch."""
    return StreamLoader(
        _Told(mixture),
        batch_sampler=Unsized(sampler),
        collate_fn=_Collate(collate),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        persistent_workers=workers > 0,
    )


class _Failure:
    """What a worker could not do, on its way to the training process."""

    def __init__(self, told: str) -> None:
        self.told = told


class _Told(Dataset[Any]):
    """A mixture that returns the user's mistakes instead of raising them."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __getitems__(self, places: Sequence[Place]) -> list[Any] | _Failure:
        shared_memory.begin_batch()
        try:
            return self.mixture.__getitems__(places)
        except UserError as error:
            return _Failure(str(error))


class _Collate:
    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, examples: list[Any] | _Failure) -> Any:
        if isinstance(examples, _Failure):
            return examples
        batch = self.collate(examples)
        if not shared_memory.in_worker() or not isinstance(batch, dict):
            return batch
        message, lease = shared_memory.sent(batch)
        message = {name: _light(value) for name, value in message.items()}
        return message if lease is None else message | {_LEASE: lease}


class _Light:
    """A small tensor on its way from a worker: in the message itself, since a file in shared memory costs more."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.numpy()


def _light(value: Any) -> Any:
    return _Light(value) if isinstance(value, Tensor) and value.nbytes <= shared_memory.SMALL else value


def _received(batch: dict[str, Any]) -> dict[str, Any]:
    lease = batch.pop(_LEASE, None)
    large = lease.tensors if lease else {}
    return {name: large[name] if name in large else _tensor(value) for name, value in batch.items()}


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value.value) if isinstance(value, _Light) else value


def _begin(ring: RingBuffer, worker: int) -> None:
    # the text tokenizer would warn of each fork otherwise; a worker has one thread anyway
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # what came with the fork stays: to look through it for garbage again and again costs time, and copies its memory
    gc.freeze()
    shared_memory.begin(ring, worker)
    end_with_parent()
