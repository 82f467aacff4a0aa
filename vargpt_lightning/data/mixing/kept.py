"""What is measured of each record of a corpus once, kept as a file that all processes of a run share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes


def kept(
    file: Path, shape: tuple[int, int], told: str, measure: Callable[[], NDArray[np.uint32]]
) -> NDArray[np.uint32]:
    """Return an array of a shape from a file, or what `measure` returns, which is then written there.

    `told` is printed before something is measured.
    Raises UserError when the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # the processes of a run come all at once; one of them measures
            if (found := _read(file, shape)) is not None:
                return found
            print(told, flush=True)
            values = measure()
            content = io.BytesIO()
            np.save(content, values)
            write_bytes(file, content.getvalue())
            return values
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error}); expected a folder for what is measured") from error


def _read(file: Path, shape: tuple[int, int]) -> NDArray[np.uint32] | None:
    try:
        found: NDArray[np.uint32] = np.load(file, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return found if found.shape == shape else None
