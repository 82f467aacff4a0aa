"""A loss or gradient that is no number: training stops, or passes the step over, and writes down whose fault it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl


class NonFiniteGuard:
    """Looks at each step's losses and gradient norm; all processes come to the same decision.

    Args:
        policy: "stop" training, or "skip" the step: the weights stay as they are, and the step is counted.
        file: where a row is written for each process: the step, its losses, the norm and the ids of its records;
            None writes nothing.

    Attributes:
        skipped: steps skipped so far.
    """

    def __init__(self, policy: Literal["stop", "skip"] = "stop", file: Path | None = None) -> None:
        self.policy, self.file = policy, file
        self.skipped = 0
        self._losses: list[Tensor] = []
        self._records: list[str] = []

    def begin(self, batch: Mapping[str, Any], first: bool) -> None:
        """Note whose batch is trained next; `first` of its step."""
        if first:
            self._losses, self._records = [], []
        rows = getattr(batch.get("rows"), "records", [])
        self._records += [f"{record.source}/{record.id}" for record in rows if record is not None]

    def note(self, loss: Tensor) -> None:
        """Note a batch's loss."""
        self._losses.append(loss.detach())

    def passes(self, norm: Tensor | None, step: int, stage: str) -> bool:
        """Whether the step may be taken.

        Args:
            norm: of the gradient, the same in all processes; None where it may be infinite in its course.
            step: optimizer steps taken before this one.
            stage: the stage's name, for the message.

        Raises:
            UserError: it may not, and the policy is "stop".
        """
        bad = torch.zeros((), dtype=torch.int32, device=self._losses[0].device if self._losses else "cpu")
        for value in [*self._losses, *([] if norm is None else [norm])]:
            bad |= (~torch.isfinite(value)).to(bad.device, torch.int32)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        if not int(bad):
            return True
        self._write(norm, step, stage)
        where = f"; the records of its batches are in {self.file}" if self.file else ""
        if self.policy == "stop":
            raise UserError(
                f"stage {stage}, step {step + 1}: the loss or the gradient is not finite{where}. Training has stopped; "
                "a lower learning rate, other data, or trainer.nonfinite=skip go on from the last checkpoint"
            )
        self.skipped += 1
        return False

    def _write(self, norm: Tensor | None, step: int, stage: str) -> None:
        losses = [repr(float(loss)) for loss in self._losses]
        shown = None if norm is None else repr(float(norm))
        row = {"stage": stage, "step": step + 1, "losses": losses, "gradient_norm": shown, "records": self._records}
        rows = [row]
        rank = 0
        if dist.is_initialized() and dist.get_world_size() > 1:
            rows, rank = [row] * dist.get_world_size(), dist.get_rank()
            dist.all_gather_object(rows, row)
        if self.file is not None and rank == 0:
            append_jsonl(self.file, ({"process": process, **one} for process, one in enumerate(rows)))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, over all shards; a DTensor where they are."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


def as_plain(norm: Tensor) -> Tensor:
    """Return a norm as every process sees it."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
