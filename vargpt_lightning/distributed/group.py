"""Several processes on one job: who does what, and adding up what each found. Imports torch only when there are two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from vargpt_lightning.utils.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are; alone by default."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise UserError(f"process {self.rank} of {self.world}; expected a number from 0 to one below the count")

    @classmethod
    def from_environment(cls) -> Processes:
        """What torchrun says in RANK and WORLD_SIZE; joins the group of processes when there are several."""
        found = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        if found.world > 1:
            import torch.distributed as group

            if not group.is_initialized():
                group.init_process_group("gloo")
        return found

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what all found."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of the items: each item belongs to exactly one, whatever was done before."""
        return items[self.rank :: self.world]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order, in every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as group

        found: list[Any] = [None] * self.world
        group.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """The first process's value, in every process."""
        return self.gather(value)[0]

    def say(self, line: str) -> None:
        """Print a line, in the first process alone."""
        if self.first:
            print(line, flush=True)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process do the block before the others, who find what it has left on the disk."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def all_reduce(self, tensor: Any) -> None:
        """Replaces a tensor by the sum over all processes."""
        if self.world > 1:
            import torch.distributed as group

            group.all_reduce(tensor)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.world > 1:
            import torch.distributed as group

            group.barrier()
