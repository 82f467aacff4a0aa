"""Modules seen anew: the same weights under other settings, such as another size of pictures."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def view_of(module: Module) -> Module:
    """Return another module with the very weights, buffers and modules of one; what is set on it is its own.

    Hooks and what wraps methods come along as they are. `copy.copy` would ask a sharded module's class for a new one.
    """
    view: Module = object.__new__(type(module))
    view.__dict__.update(module.__dict__)
    view.__dict__["_modules"] = dict(module._modules)
    return view
