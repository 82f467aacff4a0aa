"""Modules made on the meta device, with a record of how making them would have filled their tensors.

The record is played tensor by tensor: each is made whole, exactly as if the modules had been made in memory with the
same seed, handed over, and freed. So a model that is larger than memory begins with the numbers that it would have had,
each process keeping its part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
COPY = torch.ops.aten.copy_.default
FILLS = (torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default)
EMPTY = (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_strided.default)


class Place(NamedTuple):
    """What of its storage an operation writes to."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    whole: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Place:
        """Return the place of a tensor."""
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype, whole)

    def empty(self) -> Tensor:
        """Return memory of its form."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype)


class Step(NamedTuple):
    """An operation on one storage; `place` is None where it makes the tensor that the storage is of."""

    storage: int
    operation: Callable[..., Any]
    place: Place | None
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    draws: bool
    mixes: bool = False  # with other storages

    @property
    def begins(self) -> bool:
        """Whether what the storage held before does not matter."""
        if self.mixes:
            return False
        return self.place is None or (self.place.whole and (self.draws or self.operation in FILLS))

    def run(self, tensor: Tensor | None) -> Tensor:
        """Do it to a tensor of the storage, or to new memory; return the tensor."""
        if self.place is None:
            made: Tensor = self.operation(*self.arguments, **self.keywords)
            return made
        if tensor is None:
            tensor = self.place.empty()
            target = tensor
        else:
            target = tensor.as_strided(self.place.size, self.place.stride, self.place.offset)
        self.operation(target, *self.arguments, **self.keywords)
        return tensor


class RecordedInit(TorchDispatchMode):
    """Everything that is made inside is on the meta device; `play` fills it.

        with RecordedInit(seed) as made:
            model = VARGPT(config)
        made.play({made.storage_of(parameter): keep for parameter in model.parameters()})

    Args:
        seed: of torch's generator, that the modules would have been made with.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self._steps: list[Step] = []
        self._alive: dict[int, Any] = {}  # a storage's number must not be given to another one
        self._patched = ExitStack()

    def __enter__(self) -> RecordedInit:
        # drawn again until it fits, which cannot be told without numbers: one step of the record
        trunc_normal = nn.init.trunc_normal_

        def noted(tensor: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
            self._steps.append(Step(self.storage_of(tensor), trunc_normal, Place.of(tensor), arguments, keywords, True))
            return tensor

        self._patched.enter_context(mock.patch.object(nn.init, "trunc_normal_", noted))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patched.close()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = dict(kwargs or {})
        if any(argument.name == "device" for argument in operation._schema.arguments):
            keywords["device"] = META
        found = operation(*args, **keywords)
        if not isinstance(found, Tensor) or found.device != META:
            return found
        draws = torch.Tag.nondeterministic_seeded in operation.tags
        if operation._schema.is_mutable:
            self._note_write(operation, args, dict(kwargs or {}), draws)
        elif self.storage_of(found) not in self._alive:
            foreign = any(isinstance(argument, Tensor) for argument in args)
            self._alive[self.storage_of(found)] = found.untyped_storage()
            on_cpu = {**keywords, "device": torch.device("cpu")} if "device" in keywords else keywords
            if any(argument.name == "dtype" for argument in operation._schema.arguments):
                on_cpu["dtype"] = found.dtype  # the default one may be another when it is played
            self._steps.append(Step(self.storage_of(found), operation, None, args, on_cpu, draws, foreign))
        return found

    def _same(self, one: Tensor, other: Tensor) -> bool:
        return self.storage_of(one) == self.storage_of(other) and Place.of(one) == Place.of(other)

    @staticmethod
    def storage_of(tensor: Tensor) -> int:
        """Return the number of a tensor's storage in the record."""
        return tensor.untyped_storage()._cdata

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor was made inside."""
        return tensor.is_meta and self.storage_of(tensor) in self._alive

    def play(self, wanted: Mapping[int, Callable[[Tensor], None]]) -> None:
        """Fill the wanted storages, one at a time, and hand each one's tensor over; torch's generator is left alone.

        Raises:
            RuntimeError: what a tensor holds depends on another tensor, or nothing fills it.
        """
        steps = self._by_storage()
        begins = {storage: self._begin(storage, places, wanted) for storage, places in steps.items()}
        waiting = dict(wanted)
        held: dict[int, Tensor] = {}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            for number, step in enumerate(self._steps):
                if not waiting:
                    break
                storage = step.storage
                if storage not in waiting or number < begins[storage]:
                    if step.draws:  # for what comes after it in the stream
                        step.run(None)
                    continue
                own = steps[storage]
                if number == begins[storage] or step.draws:
                    # what draws nothing is done at once, so that few tensors wait for their ends
                    held[storage] = step.run(held.get(storage))
                    own = own[own.index(number) + 1 :]
                    while own and not self._steps[own[0]].draws:
                        held[storage] = self._steps[own.pop(0)].run(held[storage])
                    if not own:
                        waiting.pop(storage)(held.pop(storage))

    def _by_storage(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number, step in enumerate(self._steps):
            found.setdefault(step.storage, []).append(number)
        return found

    def _begin(self, storage: int, numbers: list[int], wanted: Mapping[int, Any]) -> int:
        """The last step of a storage that does not care for what was there before."""
        begin = max((number for number in numbers if self._steps[number].begins), default=numbers[0])
        if storage in wanted:
            if any(self._steps[number].mixes for number in numbers if number >= begin):
                raise RuntimeError("a tensor depends on others when it is made, and cannot be made by itself")
            if begin == numbers[-1] and self._steps[begin].operation in EMPTY:
                raise RuntimeError("a tensor is left as it was found in memory when it is made")
        return begin

    def _note_write(self, operation: Any, args: Any, keywords: dict[str, Any], draws: bool) -> None:
        target, *rest = args
        if not isinstance(target, Tensor) or self.storage_of(target) not in self._alive:
            return
        place = Place.of(target)
        others = [value for value in (*rest, *keywords.values()) if isinstance(value, Tensor) and value.device == META]
        if operation == COPY and others and self._same(others[0], target):
            return  # the end of `rows[:2] *= 2`
        self._steps.append(Step(self.storage_of(target), operation, place, tuple(rest), keywords, draws, bool(others)))
