"""Weights in a checkpoint that several processes wrote together, read one at a time by one process."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vargpt_lightning.checkpoints.dcp.folder import step_of
from vargpt_lightning.checkpoints.dcp.reader import FillPlanner, FolderReader
from vargpt_lightning.utils.errors import UserError


@dataclass(frozen=True)
class ShardedTensor:
    """A tensor whose parts lie in the files of several processes; a `Source`."""

    file: Path
    key: str
    shape: torch.Size
    dtype: torch.dtype
    reader: FolderReader = field(repr=False, compare=False)

    def part(self, *where: slice) -> Tensor:
        """Return the tensor, or what the slices leave of it."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.distributed is disabled.*")
            try:
                dcp.load({self.key: whole}, storage_reader=self.reader, planner=FillPlanner())
            except (dcp.api.CheckpointException, RuntimeError, ValueError, OSError) as error:
                raise UserError(f"{self.file}: {self.key} cannot be read ({error})") from error
        return whole[where] if where else whole


def open_distributed(folder: Path, prefix: str) -> dict[str, ShardedTensor]:
    """Return the tensors of a distributed checkpoint whose names begin with a prefix, without it.

    Raises:
        UserError: the checkpoint is not whole.
    """
    step_of(folder)
    reader = FolderReader(folder)
    return {
        key.removeprefix(prefix): ShardedTensor(folder, key, torch.Size(entry.size), entry.properties.dtype, reader)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if key.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
