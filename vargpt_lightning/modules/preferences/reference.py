"""Log-probabilities under the frozen reference, computed once and kept on the disk.

Legend: N rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes

KEY_BYTES = 16
PART_ROWS = 4096
"""A part is written when so many values wait, or when all are there."""


class ReferenceValues:
    """Values by the keys of rows, in parts that are each written whole: a kill loses what waits, and no more.

    Several processes may write into one folder; each sees what was there when it opened the folder, and its own.

    Args:
        folder: of these values alone: its name says which reference they are of.
        rank: of the process, a part of its files' names.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._known: dict[bytes, float] = {}
        self._waiting: dict[bytes, float] = {}
        self.read()

    def __len__(self) -> int:
        return len(self._known)

    def read(self) -> None:
        """Take up what other processes have written.

        Raises:
            UserError: a part cannot be read.
        """
        for part in sorted(self.folder.glob("part-*.safetensors")):
            try:
                held = load_file(part)
                keys, values = held["keys"].numpy(), held["values"].tolist()
            except (OSError, KeyError, SafetensorError) as error:
                raise UserError(f"{part}: cannot be read ({error}); delete it to have it computed again") from error
            self._known.update((key.tobytes(), value) for key, value in zip(keys, values, strict=True))

    def missing(self, keys: Iterable[bytes]) -> bool:
        """Tell whether a value is not there yet."""
        return any(key not in self._known for key in keys)

    def add(self, keys: Sequence[bytes], values_N: Tensor) -> None:
        """Keep values that are not there yet."""
        new = {key: value for key, value in zip(keys, values_N.tolist(), strict=True) if key not in self._known}
        self._known |= new
        self._waiting |= new
        if len(self._waiting) >= PART_ROWS:
            self.write()

    def write(self) -> None:
        """Write what waits as one part."""
        if not self._waiting:
            return
        keys = torch.frombuffer(bytearray(b"".join(self._waiting)), dtype=torch.uint8).view(-1, KEY_BYTES)
        values = torch.tensor(list(self._waiting.values()), dtype=torch.float64)
        # by its first key and the process, so that no part takes the place of another
        name = f"part-{next(iter(self._waiting)).hex()}-{self.rank}-{os.getpid()}.safetensors"
        write_bytes(self.folder / name, save({"keys": keys, "values": values}))
        self._waiting.clear()

    def of(self, keys: Sequence[bytes], device: torch.device | str = "cpu") -> Tensor:
        """Return the values of rows: (N,) float64.

        Raises:
            UserError: one is not there.
        """
        if self.missing(keys):
            raise UserError(
                f"{self.folder}: it has no log-probability under the reference for a row that is trained on; the data, "
                "or the files in there, have changed since the stage began. Expected the same, or --from to train the "
                "stage again"
            )
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64, device=device)
