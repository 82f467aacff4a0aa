"""How training is spread over processes, by name: `trainer: {strategy: fsdp2}`.

| name | weights, gradients, optimizer states | checkpoints |
|---|---|---|
| single | one process | one file |
| ddp | whole in each process | one file |
| fsdp | flattened and sharded block by block with FSDP1 | one file, gathered |
| fsdp2 | sharded block by block with fully_shard | a folder that all processes write |

Other names are Lightning's own. Stages that train the image tokenizer run under ddp where fsdp or fsdp2 is asked for:
it is small, and laying its codebook wants all of it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torchmetrics import Metric

from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.checkpoints.dcp.folder import (
    AVERAGES,
    FolderWriter,
    by_name,
    folder_for,
    keys_of,
    load_rest,
    load_tensors,
    with_averages,
    without_averages,
)
from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.distributed.fsdp1 import FlatSharding
from vargpt_lightning.distributed.fsdp2 import passed, shard
from vargpt_lightning.distributed.protocol import Sharding
from vargpt_lightning.distributed.tensors import like, local, spread
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.utils.errors import UserError

SHARDED = ("fsdp", "fsdp2")
TIMEOUT = timedelta(minutes=30)  # of one exchange between processes; the first one prepares data meanwhile


def build_strategy(name: str, config: ShardingConfig, precision: str, *, tokenizer: bool = False) -> str | Strategy:
    """Return what Lightning's Trainer takes as `strategy`.

    Args:
        name: a preset's, or one of Lightning's own.
        config: see `ShardingConfig`.
        precision: the trainer's.
        tokenizer: whether the image tokenizer is trained.

    Raises:
        UserError: for settings that a preset does not have.
    """
    if name.startswith("fsdp") and name not in SHARDED:
        raise UserError(f"trainer.strategy={name}; expected fsdp, or fsdp2 with trainer.sharding.offload")
    if name == "single":
        return "auto"
    if name == "ddp" or (name in SHARDED and tokenizer):
        # a batch without pictures leaves what makes pictures without gradients
        return DDPStrategy(find_unused_parameters=True, timeout=TIMEOUT)
    if name == "fsdp2":
        return BlockSharding(config, precision)
    if name == "fsdp":
        return FlatSharding(config, precision, timeout=TIMEOUT)
    return name


def trainer_precision(name: str, precision: str) -> str:
    """Return the precision that the trainer is told: the sharded blocks of fsdp2 convert by themselves."""
    return "32-true" if name in SHARDED and precision.endswith("-mixed") else precision


class BlockSharding(ModelParallelStrategy, Sharding):
    """FSDP2 of a VARGPT's blocks, with checkpoints that another number of processes can take up.

    A module whose `vargpt` is to be sharded calls `shard` in its `configure_model`.

    Args:
        config: see `ShardingConfig`.
        precision: what blocks compute in.

    Raises:
        UserError: for numbers of copies that do not divide the processes.
    """

    def __init__(self, config: ShardingConfig, precision: str = "32-true") -> None:
        super().__init__(timeout=TIMEOUT)
        self.config = config
        self.precision_name = precision
        self.writer = FolderWriter(config.asynchronous)

    def mesh(self) -> DeviceMesh:
        """The processes, as copies of shards where there are several copies."""
        world = self.world_size
        copies = self.num_nodes if self.config.replicas == "nodes" else int(self.config.replicas)
        if world % copies:
            raise UserError(f"trainer.sharding.replicas={self.config.replicas}: does not divide the {world} processes")
        kind = self.root_device.type
        if copies == 1:
            return init_device_mesh(kind, (world,), mesh_dim_names=("shard",))
        return init_device_mesh(kind, (copies, world // copies), mesh_dim_names=("replicate", "shard"))

    def shard(self, model: VARGPTModel, weights: DeferredWeights | None = None) -> None:
        """Shard a model once; one that is on the meta device gets memory and weights for the parts that are kept."""
        if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
            return
        shard(model, self.mesh(), self.config, self.precision_name)
        if weights is not None:
            weights.fill(torch.device("cpu") if self.config.offload else self.root_device)

    def model_to_device(self) -> None:
        """Parameters are on their devices since they were sharded; with offloading they have to stay where they are."""
        assert self.model is not None
        if not self.config.offload:
            super().model_to_device()
            return
        for module in self.model.modules():
            if isinstance(module, Metric):
                module.to(self.root_device)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Keep gradients whole and unreduced inside, unless the step's last batch would not reduce all of them."""
        module: Any = self.lightning_module
        covered = getattr(module, "step_is_covered", True) and passed(module.vargpt)
        if self.config.sync_every_batch or not covered:
            yield
            return
        module.vargpt.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.vargpt.set_requires_gradient_sync(True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a folder beside where one process would write a file."""
        rest = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
        tensors: dict[str, Any] = {"model": checkpoint["state_dict"]}
        for index, state in enumerate(checkpoint.get("optimizer_states", [])):
            tensors[f"optimizer_{index}"] = state
        rest["callbacks"], averages = without_averages(rest.get("callbacks", {}))
        if averages:
            tensors[AVERAGES] = averages
        path = Path(self.broadcast(str(filepath)))
        self.writer.save(tensors, rest, folder_for(path, int(checkpoint["global_step"])))

    def finish_checkpoint(self, now: bool = False) -> None:
        """Rename a checkpoint that was written meanwhile; `now` waits for it."""
        if self.writer._pending is not None and (now or self.reduce_boolean_decision(self.writer.ready())):
            self.writer.wait()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        return get_model_state_dict(self.model)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        assert self.model is not None
        return get_optimizer_state_dict(self.model, getattr(optimizer, "_optimizer", optimizer))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill model and optimizers from a folder; return the rest."""
        assert self.model is not None and self.lightning_module is not None
        folder = Path(self.broadcast(str(checkpoint_path)))
        if folder.is_file():
            return self._load_file(folder)
        keys = keys_of(folder)
        saved = {key.removeprefix("model.") for key in keys if key.startswith("model.")}
        weights = {key: value for key, value in get_model_state_dict(self.model).items() if key in saved}
        load_tensors(folder, {"model": weights})
        set_model_state_dict(self.model, weights, options=StateDictOptions(strict=False))
        for index, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{index}": get_optimizer_state_dict(self.model, optimizer)}
            load_tensors(folder, state)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=state[f"optimizer_{index}"])
        rest = load_rest(folder)
        names = {key.removeprefix(f"{AVERAGES}.") for key in keys if key.startswith(f"{AVERAGES}.")}
        if names:
            parameters = dict(self.lightning_module.named_parameters())
            averages = {name: _empty_average(parameters[name]) for name in sorted(names)}
            load_tensors(folder, {AVERAGES: averages})
            rest["callbacks"] = with_averages(rest["callbacks"], averages)
        return rest

    def _load_file(self, file: Path) -> dict[str, Any]:
        """Fill model and optimizers from what a process with whole weights has left; each keeps its parts."""
        assert self.model is not None and self.lightning_module is not None
        loaded = AtomicCheckpointIO().load_checkpoint(file)
        whole = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self.model, loaded.pop("state_dict"), options=whole)
        names = {parameter: name for name, parameter in self.lightning_module.named_parameters()}
        for optimizer, state in zip(self.optimizers, loaded.pop("optimizer_states"), strict=True):
            own = [names[each] for group in optimizer.param_groups for each in group["params"]]
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=by_name(state, own), options=whole)
        loaded["callbacks"], averages = without_averages(loaded.get("callbacks", {}))
        parameters = {name: parameter for parameter, name in names.items()}
        parts = {name: spread(average, parameters[name]) for name, average in averages.items()}
        loaded["callbacks"] = with_averages(loaded["callbacks"], parts)
        return loaded

    def teardown(self) -> None:
        if dist.is_initialized():
            self.finish_checkpoint(now=True)
        super().teardown()


def _empty_average(parameter: Tensor) -> Tensor:
    return like(torch.zeros_like(local(parameter.detach()), dtype=torch.float32), parameter)


def join_processes(trainer: pl.Trainer) -> tuple[int, int]:
    """Join the group of processes that a trainer's strategy wants; return this one's rank and their number.

    The group outlives the trainers of the stages. It has a part for tensors on the CPU beside that of the GPUs.
    """
    strategy = trainer.strategy
    environment = getattr(strategy, "cluster_environment", None)
    if environment is None:
        return 0, 1
    rank, world = (environment.global_rank(), environment.world_size())
    if not dist.is_initialized() and (world > 1 or isinstance(strategy, (FSDPStrategy, ModelParallelStrategy))):
        device = strategy.root_device if world > 1 else torch.device("cpu")
        gpu = trainer.accelerator.__class__.__name__ == "CUDAAccelerator"
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        if gpu:
            torch.cuda.set_device(device)
        if world > 1:
            os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = (
                environment.main_address,
                str(environment.main_port),
            )
            dist.init_process_group(backend, rank=rank, world_size=world, timeout=TIMEOUT)
        else:
            dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore(), timeout=TIMEOUT)
    return rank, world
