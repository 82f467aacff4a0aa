"""What modules and callbacks ask of a strategy that shards: a class with a default that does nothing for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from vargpt_lightning.checkpoints.deferred import DeferredWeights
    from vargpt_lightning.models.vargpt import VARGPTModel


class Sharding:
    """A strategy that spreads a model over the processes; Lightning's own strategies are none."""

    def shard(self, model: VARGPTModel, weights: DeferredWeights | None = None) -> None:
        """Spread a model over the processes, in `configure_model`; `weights` give memory to one that has none."""

    def free_gathered(self) -> None:
        """Free weights that a forward pass has gathered and no backward pass will free."""

    def drop_unused(self, parameters: list[nn.Parameter]) -> None:
        """Drop gradients of parameters that no loss has reached in a step."""

    def total_norm(self, norm: Tensor) -> Tensor:
        """Return the gradient's norm over all processes, for the norm of what this process holds."""
        return norm

    def finish_checkpoint(self, now: bool = False) -> None:
        """Finish a checkpoint that is still being written; `now` waits for it."""
