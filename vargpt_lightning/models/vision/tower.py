"""What a vision tower's module and its network have. Imports no torch: experiments are read without.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vargpt_lightning.models.core.config import VisionConfig

Fit = Literal["clip", "llava", "pad", "crop"]
"""How pictures are made square; see `VisionConfig.fit`."""


@runtime_checkable
class Tower(Protocol):
    """A vision tower: a module with these names; docs/add-a-backbone.md shows one."""

    @property
    def NAME(self) -> str:
        """By which it is found: the value of `model.vision.kind`."""

    @property
    def SCALING(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation by colour, of values in [0, 1], with which it was trained."""

    @property
    def FIT(self) -> str:
        """The resize mode: how pictures are made square unless `model.vision.fit` says so: one of `Fit`."""

    def stride(self, config: VisionConfig, /) -> int:
        """Pixels of a picture's side that one feature token stands for."""

    def channels(self, config: VisionConfig, /) -> int:
        """Channels of a feature token."""

    def build(self, config: VisionConfig, /) -> nn.Module:
        """The network, of pictures (P, 3, S, S) to features (P, N, C).

        Names of its parameters begin with `model.`, so that checkpoints are recognised. What else it may have is said
        by `blocks_of`, `packaged_weights` and `restore_constants`.
        """


@runtime_checkable
class Checks(Protocol):
    """A tower whose sizes have to fit each other."""

    def check(self, config: VisionConfig, /) -> None:
        """Raise UserError for sizes that do not."""


def check_sizes(tower: Tower, config: VisionConfig) -> None:
    """Raise UserError for sizes that a tower's `check` refuses; all are right to a tower without one."""
    if isinstance(tower, Checks):
        tower.check(config)


# What a network may have besides is asked for by name: to isinstance, of Python 3.12, a submodule is no attribute.


def blocks_of(network: nn.Module | None) -> Iterable[nn.Module]:
    """The `blocks` of a tower's network, sharded, compiled and computed again one by one; it need not have any."""
    blocks: Iterable[nn.Module] = getattr(network, "blocks", ())
    return blocks


def packaged_weights(network: nn.Module | None) -> Mapping[str, Tensor]:
    """What `packaged_weights()` of a tower's network returns: weights by name that come with a package, if any do."""
    weights: Callable[[], Mapping[str, Tensor]] = getattr(network, "packaged_weights", dict)
    return weights()


def restore_constants(network: nn.Module | None) -> None:
    """Call a network's `restore_constants()`, if it has one: it fills buffers that no checkpoint holds."""
    restore: Callable[[], None] | None = getattr(network, "restore_constants", None)
    if restore is not None:
        restore()
