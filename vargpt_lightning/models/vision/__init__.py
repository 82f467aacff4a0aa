"""The networks that see pictures, one file each; a new file with a `NAME` is all that a new tower takes.

A tower's module has, for the value NAME of `model.vision.kind`:

- `SCALING`: mean and deviation by colour, of values in [0, 1], with which it was trained.
- `FIT`: how pictures are made square unless `model.vision.fit` says so: "clip", "llava", "pad" or "crop".
- `stride(config)`: pixels of a picture's side that one feature token stands for.
- `channels(config)`: channels of a feature token.
- `check(config)`, if need be: raises UserError for sizes that do not fit each other.
- `build(config)`: the network, of pictures (P, 3, S, S) to features (P, N, C). A `blocks` of it, a ModuleList, is
  sharded, compiled and computed again block by block; a `restore_constants()` is called once weights are in place, for
  buffers that no checkpoint holds; a `packaged_weights()` returns weights by name that come with a package. Names of
  parameters begin with `model.`, so that checkpoints are recognised.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from vargpt_lightning.utils.plugins import module_of, named_modules

NONE = "none"


@cache
def names() -> tuple[str, ...]:
    """The names of all towers there are, sorted; none of them is imported."""
    return named_modules(__path__)


def get(name: str) -> ModuleType:
    """Return a tower's module by its name; raises UserError when there is none."""
    return module_of(__name__, name, names(), "vision.kind")
