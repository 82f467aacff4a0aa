"""How far two orders of the same arithmetic may lie apart, whatever the processor and its kernels.

Vector width, fused multiply-adds and blocking change the order of sums, so that equal formulas differ by some units in
the last place of the largest value that takes part. A wrong mask, weight or row differs by thousands of times more.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Units in the last place: a few dozen sums after one another in some layers; seen at most 20 on AVX2, AVX-512 and none.
UNITS = 128


def slack(value: Tensor | float, units: float = UNITS) -> float:
    """Return what rounding may move: `units` in the last place of the largest value, never of less than one."""
    value = torch.as_tensor(value)
    largest = value.abs().max().item() if value.numel() else 0.0
    return units * torch.finfo(value.dtype).eps * max(1.0, largest)


def assert_same_but_rounding(found: Tensor | float, expected: Tensor | float, units: float = UNITS) -> None:
    """Compare the results of two orders of the same arithmetic.

    Raises:
        AssertionError: if they differ in shape, in type, or by more than `slack(expected)`.
    """
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=slack(expected, units))
