"""One toolkit for the whole life of a VARGPT-style model: data, training, sampling, evaluation.

>>> import vargpt_lightning
>>> model = vargpt_lightning.load("exported")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vargpt_lightning.checkpoints.hub import VARGPT as VARGPT
    from vargpt_lightning.inference.load import load as load

__version__ = "0.1.0"

_LAZY = {"VARGPT": "vargpt_lightning.models.vargpt", "load": "vargpt_lightning.inference.load"}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
