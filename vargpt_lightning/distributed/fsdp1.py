"""Sharding with Lightning's FSDPStrategy (FSDP1), so that it computes and writes what one process does.

FSDP1 keeps a module's parameters as one flat vector, of which each process has a piece. Blocks, the vision tower and
what is in neither are such vectors. What Lightning leaves to the user is done here: the norm of the gradient is that of
all pieces, parameters that a step has not used get no gradient (FSDP1 gives them zeros, and the optimizer would move
them), and checkpoints and weights have the names and shapes of a model that is not wrapped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import MixedPrecision, ShardingStrategy
from torch.distributed.fsdp.wrap import CustomPolicy

from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.checkpoints.dcp.folder import with_averages, without_averages
from vargpt_lightning.distributed.fsdp2 import blocks
from vargpt_lightning.distributed.protocol import Sharding
from vargpt_lightning.distributed.tensors import FlatPart, gathered, named_parameters, plain_name, set_flat_part, spread
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.utils.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed")


class FlatSharding(FSDPStrategy, Sharding):
    """FSDP1 of a stage module's VARGPT; the image tokenizer stays whole in each process, in 32 bits.

    Gradients are reduced after each accumulated batch: kept back, they would be lost where the step's last batch does
    not pass all blocks.

    Args:
        config: see `ShardingConfig`; what of it only fsdp2 has is refused.
        precision: what blocks compute in.

    Raises:
        UserError: for settings that cannot be had.
    """

    def __init__(self, config: ShardingConfig, precision: str = "32-true", **more: Any) -> None:
        for name, value, only in (("offload", config.offload, False), ("replicas", config.replicas, 1)):
            if value != only:
                raise UserError(
                    f"trainer.sharding.{name}={value} with fsdp; expected {only}, or trainer.strategy=fsdp2"
                )
        if precision not in PRECISIONS:
            expected = f"{' or '.join(PRECISIONS)}, or trainer.strategy=fsdp2"
            raise UserError(f"trainer.precision={precision} with fsdp; expected {expected}")
        mixed = MixedPrecision(torch.bfloat16, torch.float32) if precision == "bf16-mixed" else None
        kind = ShardingStrategy.FULL_SHARD if config.reshard else ShardingStrategy.SHARD_GRAD_OP
        super().__init__(sharding_strategy=kind, mixed_precision=mixed, **more)
        self._used: set[nn.Parameter] = set()

    def _setup_model(self, model: nn.Module) -> nn.Module:
        vargpt: Any = model.vargpt
        vargpt.image_tokenizer.to(self.root_device)
        self._names = list(model.state_dict())
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()
        units = {block for _, block in blocks(vargpt)} | {vargpt.vision_tower}
        wrapped = FSDP(
            model,
            sharding_strategy=self.sharding_strategy,
            auto_wrap_policy=CustomPolicy(lambda module: module in units),
            mixed_precision=self.mixed_precision,
            ignored_states=list(vargpt.image_tokenizer.parameters()),
            device_id=self.root_device,
            use_orig_params=True,
        )
        for unit in FSDP.fsdp_modules(wrapped):
            handle = unit._handle
            if handle is None:
                continue
            flat: Any = handle.flat_param
            for parameter, shape, info in zip(flat._params, flat._shapes, flat._shard_param_infos, strict=True):
                start, count = (info.intra_param_start_idx, info.numel_in_shard) if info.in_shard else (0, 0)
                set_flat_part(parameter, FlatPart(shape, start, count, handle.process_group))
            unit.module.register_forward_pre_hook(self._note_used(flat))
        return wrapped

    def _note_used(self, flat: Any) -> Any:
        """Return a hook for a unit that notes which of its parameters gradients come to."""

        def before(*_: Any) -> None:
            if not torch.is_grad_enabled():
                return
            for parameter, (name, module, _) in zip(flat._params, flat._param_infos, strict=True):
                view = getattr(module, name)
                if parameter.requires_grad and view.requires_grad:
                    view.register_hook(partial(self._use, parameter))

        return before

    def _use(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        self._used.add(parameter)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        yield

    def drop_unused(self, parameters: list[nn.Parameter]) -> None:
        """Take the zeros from parameters that no process has used in this step, so that they stay as they are."""
        used = torch.tensor([parameter in self._used for parameter in parameters], device=self.root_device)
        found = used.to(torch.int32)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        for parameter, each in zip(parameters, found.tolist(), strict=True):
            if not each:
                parameter.grad = None
        self._used.clear()

    def total_norm(self, norm: Tensor) -> Tensor:
        """Return the norm of all processes' pieces from that of this one's."""
        squared = norm.to(self.root_device).double().square()
        dist.all_reduce(squared)
        return squared.sqrt().to(norm.dtype)

    def free_gathered(self) -> None:
        """Free what was gathered for forward passes without backward ones: the next would take it for its own."""
        assert self.model is not None
        for unit in FSDP.fsdp_modules(self.model):
            if unit._handle is not None:
                unit._handle.reshard(True)

    def trained_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the model's buffers and trained weights by their names in it, gathered one after the other by all."""
        places = self._places()
        for name, tensor in self.lightning_module_state_dict().items():
            place = places.get(name, tensor)
            if name not in places or place.requires_grad:
                yield name.removeprefix("vargpt."), gathered(tensor, place)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return this process's parts, by the names of the module that is not wrapped."""
        assert self.lightning_module is not None
        tensors: dict[str, Tensor] = {plain_name(name): each for name, each in self.lightning_module.named_buffers()}
        tensors |= self._places()
        return {name: tensors[name].detach() for name in self._names}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return this process's parts, by parameters' places in the groups."""
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write the file that one process would write: tensors are gathered, and kept by the first process."""
        places = self._places()
        rest, averages = without_averages(checkpoint.get("callbacks", {}))
        changed: dict[str, Any] = {"state_dict": self._kept(checkpoint["state_dict"], places)}
        changed["callbacks"] = with_averages(rest, self._kept(averages, places))
        if "optimizer_states" in checkpoint:
            pairs = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
            changed["optimizer_states"] = [self._whole_state(optimizer, state) for optimizer, state in pairs]
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint({**checkpoint, **changed}, self.broadcast(filepath))
        else:
            self.broadcast(filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill model and optimizers, each process its parts, from whole weights; return the rest."""
        loaded = AtomicCheckpointIO().load_checkpoint(self.broadcast(checkpoint_path))
        places, own = self._places(), self.lightning_module_state_dict()
        with torch.no_grad():
            for name, tensor in loaded.pop("state_dict").items():
                own[name].copy_(spread(tensor, places.get(name, own[name])))
        for optimizer, state in zip(self.optimizers, loaded.pop("optimizer_states"), strict=True):
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            parts = {
                number: {
                    kind: spread(value, parameters[number]) if _is_spread(value) else value
                    for kind, value in values.items()
                }
                for number, values in state["state"].items()
                if parameters[number].numel()
            }
            optimizer.load_state_dict({**state, "state": parts})
        rest, averages = without_averages(loaded.get("callbacks", {}))
        pieces = {name: spread(average, places[name]).clone() for name, average in averages.items()}
        loaded["callbacks"] = with_averages(rest, pieces)
        return loaded

    def _places(self) -> dict[str, nn.Parameter]:
        assert self.lightning_module is not None
        return dict(named_parameters(self.lightning_module, every=True))

    def _kept(self, parts: dict[str, Tensor], places: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """Gather parts; the first process keeps them, in the CPU's memory."""
        found = {}
        for name, part in parts.items():
            tensor = gathered(part, places.get(name, part))
            if self.is_global_zero:
                found[name] = tensor.cpu()
        return found

    def _whole_state(self, optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        """Gather an optimizer's state; a process without a part of a parameter has no state of it."""
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        plain = {
            (number, kind): None if _is_spread(value) else value
            for number, values in state["state"].items()
            for kind, value in values.items()
        }
        every: list[dict[tuple[int, str], Any]] = [{}] * self.world_size
        dist.all_gather_object(every, plain)
        found: dict[int, dict[str, Any]] = {}
        together = {key: value for each in every for key, value in each.items()}
        for number, kind in sorted(together):
            value = together[number, kind]
            if value is None:
                parameter = parameters[number]
                part = state["state"].get(number, {}).get(kind, torch.zeros_like(parameter))
                value = self._kept({kind: part}, {kind: parameter}).get(kind)
            found.setdefault(number, {})[kind] = value
        return {**state, "state": found}


def _is_spread(value: Any) -> bool:
    """Whether an optimizer's value is one for each element of a parameter, and no count of steps."""
    return isinstance(value, Tensor) and value.dim() > 0
