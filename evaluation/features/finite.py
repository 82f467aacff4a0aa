"""Numbers that are none: weights, statistics and features with NaN or infinity in them are named, never used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vargpt_lightning.utils.errors import UserError


def check_finite(file: Path | str, arrays: Mapping[str, Any]) -> None:
    """Refuse arrays (of numpy or torch, by name) of a file that hold NaN or infinity.

    Raises:
        UserError: names the file, the first such array, and how many of its numbers are none.
    """
    for name, array in arrays.items():
        bad, total = _not_finite(array)
        if bad:
            where = f"{bad} of {total} places"
            raise UserError(f"{file}: the array {name!r} holds NaN or infinity in {where}; expected numbers")


def check_rows(features_ND: Any, names: Sequence[Any], network: str) -> None:
    """Refuse features (N, D) that are no numbers: a mean over many pictures would hide whose they are.

    Raises:
        UserError: names the first of these pictures or texts, and the network.
    """
    good_N = features_ND.isfinite().all(dim=1).tolist()
    if not all(good_N):
        first = next(name for name, good in zip(names, good_N, strict=True) if not good)
        raise UserError(
            f"{first}: its features ({network}) hold NaN or infinity, as those of {good_N.count(False)} of "
            f"{len(good_N)} in the batch; expected numbers: are the network's weights sound?"
        )


def _not_finite(array: Any) -> tuple[int, int]:
    """How many numbers of how many are NaN or infinite; 0 where it holds no fractions."""
    if hasattr(array, "is_floating_point"):
        if not (array.is_floating_point() or array.is_complex()):
            return 0, array.numel()
        return int((~array.isfinite()).sum()), array.numel()
    values = np.asarray(array)
    if not np.issubdtype(values.dtype, np.inexact):
        return 0, values.size
    return int((~np.isfinite(values)).sum()), values.size
