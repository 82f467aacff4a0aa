"""How a model is spread over processes and how its blocks are run, as data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Range, Ranged

CHECKPOINTING = "none, full, selective, or every_N such as every_2"


@dataclass
class ShardingConfig(Ranged):
    """Trade-offs between memory, time and traffic; a block is a layer of language model, tower or visual decoder.

    Args:
        checkpointing: which activations are recomputed in the backward pass: "none"; "full": of every block; "every_N":
            of every N-th block; "selective": in every block all except attention and every second matrix product. With
            all strategies.
        compile: use torch.compile for each block. With all strategies.
        offload: keep parameters, gradients and optimizer states in CPU memory. With fsdp2.
        replicas: number of copies of the model, each sharded over (processes / replicas) processes: 1 shards over all
            processes; "nodes" shards inside each node, so that weights are gathered only over its own links. With
            fsdp2.
        reshard: free the gathered weights of a block after its forward pass, and gather them again for the backward
            pass. With fsdp and fsdp2.
        sync_every_batch: reduce gradients after each accumulated batch instead of once per step: more traffic, but no
            process ever holds full gradients. With fsdp2; fsdp always does so.
        asynchronous: write checkpoints while training continues. With fsdp2.
    """

    place: ClassVar[str] = "trainer.sharding"

    checkpointing: str = "none"
    compile: bool = False
    offload: bool = False
    replicas: Annotated[int, Range(1, 1_000_000)] | str = 1
    reshard: bool = True
    sync_every_batch: bool = False
    asynchronous: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        every = self.checkpointing.removeprefix("every_")
        number = every.isdecimal() and len(every) < 10 and int(every) > 0 and every != self.checkpointing
        if not number and self.checkpointing not in ("none", "full", "selective"):
            raise UserError(f"trainer.sharding.checkpointing={self.checkpointing!r}; expected {CHECKPOINTING}")
        if self.replicas != "nodes" and isinstance(self.replicas, str):
            raise UserError(f"trainer.sharding.replicas={self.replicas!r}; expected a number from 1 on, or nodes")

    def checkpoints(self, index: int) -> bool:
        """Whether the activations of a tower's block, by its place from 0 on, are computed again."""
        if self.checkpointing.startswith("every_"):
            return (index + 1) % int(self.checkpointing.removeprefix("every_")) == 0
        return self.checkpointing != "none"
