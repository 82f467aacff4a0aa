"""What a vision tower's module and its network have. Imports no torch: experiments are read without.

Legend: P seen pictures, S picture side, N feature tokens of a picture, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vargpt_lightning.models.core.config import VisionConfig

Fit = Literal["clip", "llava", "pad", "crop", "siglip", "dinov2", "dinov3", "naflex", "qwen2_vl"]
"""How pictures are made square, or keep their own shape; see `VisionConfig.fit`."""
NATIVE: Mapping[str, int] = {"naflex": 1, "qwen2_vl": 2}
"""The resize modes in which pictures keep their own shape, and how many patches a side one token stands for."""
Positions = Literal["fixed", "interpolated", "computed"]
"""A table for one size of pictures, one that serves others as well, or none at all."""


@dataclass(frozen=True)
class Published:
    """How transformers' folders hold a tower.

    Args:
        model_types: what their config.json says as `model_type`, of the tower alone or of a model that has it.
        names: beginnings of their weights' names and of ours; the first that fits counts.
        unused: beginnings of the names of what is no part of the tower, looked at before `names`.
        sizes: from a config.json to the keys of `VisionConfig`.
    """

    model_types: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    unused: tuple[str, ...]
    sizes: Callable[[Mapping[str, Any]], dict[str, Any]]

    def name(self, key: str) -> str | None:
        """Return our name of a weight, or None for one that is no part of the tower."""
        if key.startswith(self.unused):
            return None
        return next((ours + key.removeprefix(theirs) for theirs, ours in self.names if key.startswith(theirs)), None)


@runtime_checkable
class Tower(Protocol):
    """A vision tower: a module with these names; docs/add-a-tower.md shows one."""

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
        """The network, of pictures (P, 3, S, S) to features (P, N, C); with a `FIT` of `NATIVE`, of strips of patches.

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


# What a module may have besides is asked for by name.


def options_of(tower: Tower) -> tuple[str, ...]:
    """The keys of `model.vision.options` that a tower takes: its `OPTIONS`."""
    options: tuple[str, ...] = getattr(tower, "OPTIONS", ())
    return options


def published_of(tower: Tower) -> Published | None:
    """How transformers' folders hold a tower, its `PUBLISHED`; None where they do not."""
    published: Published | None = getattr(tower, "PUBLISHED", None)
    return published


def blocks_name(tower: Tower) -> str:
    """Where the network's list of equal blocks is, its `BLOCKS`; empty for one without."""
    name: str = getattr(tower, "BLOCKS", "")
    return name


def positions_of(tower: Tower) -> Positions:
    """What kind of positions patches have, its `POSITIONS`."""
    positions: Positions = getattr(tower, "POSITIONS", "fixed")
    return positions


def own_projector(tower: Tower) -> Callable[[VisionConfig, int], nn.Module] | None:
    """A tower's `projector(config, width)`, which makes what carries its features to that width; None for none."""
    projector: Callable[[VisionConfig, int], nn.Module] | None = getattr(tower, "projector", None)
    return projector


def leaves_rest(tower: Tower, config: VisionConfig) -> bool:
    """Whether pictures are no whole number of patches and the rest is left out, as `leaves_rest` of the tower says."""
    leaves: Callable[[VisionConfig], bool] | None = getattr(tower, "leaves_rest", None)
    return leaves is not None and leaves(config)


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
