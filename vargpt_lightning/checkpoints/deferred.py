"""A model that is too large for one process: made without memory, sharded, and only then given its first weights.

What is stored is read in parts, each process its own; what is new is drawn whole, one tensor at a time, as one process
with the whole model would have drawn it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from vargpt_lightning.checkpoints.copy import load_tensor
from vargpt_lightning.checkpoints.dtensor import is_dtensor
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.lazy_tensors import MemoryTensor, Source
from vargpt_lightning.checkpoints.meta_init import RecordedInit
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.language.lora import name_beside_adapters
from vargpt_lightning.models.vision.tower import packaged_weights


class DeferredWeights:
    """A model on the meta device, and what its tensors are to hold; the model is changed and sharded in between.

    Args:
        config: of the model.
        seed: of torch's generator; tensors that nothing is stored for get what `VARGPT(config)` draws with it.
    """

    def __init__(self, config: VARGPTConfig, seed: int) -> None:
        self._stored: dict[str, Source] = {}
        self._made: list[RecordedInit] = []
        self._drawn: dict[str, tuple[RecordedInit, int]] = {}
        self._filled: set[str] = set()
        with RecordedInit(seed) as made:
            self.model = VARGPT(config)
        self._keep(made)
        packaged = packaged_weights(self.model.vision_tower)
        self.take({f"vision_tower.{key}": MemoryTensor(value) for key, value in packaged.items()})

    def take(self, stored: Mapping[str, Source]) -> None:
        """Use stored tensors, under the names that the model had when it was made, in place of those drawn."""
        self._stored |= stored

    def change(self, change: Callable[[VARGPT], None], seed: int) -> None:
        """Change the model, which is not sharded yet; what is added will hold what the change draws with this seed."""
        with RecordedInit(seed) as made:
            change(self.model)
        self._keep(made)

    def fill_parts(self, *parts: str) -> None:
        """Give submodules memory and weights before the model is sharded, whole, in this process."""
        for part in parts:
            module = getattr(self.model, part)
            if module is not None:
                _give_memory(module, torch.device("cpu"))
        names = [name for name in self.model.state_dict() if name.split(".")[0] in parts]
        self._fill(name for name in names if name not in self._filled)

    def fill(self, device: torch.device) -> None:
        """Give all else memory on a device, where the model is sharded for the process's parts alone, and weights."""
        _give_memory(self.model, device)
        self._fill(name for name in self.model.state_dict() if name not in self._filled)

    def _keep(self, made: RecordedInit) -> None:
        """Note what stands under which name; sharding puts other tensors there."""
        self._made.append(made)
        for name, tensor in self.model.state_dict().items():
            for record in self._made:
                if record.holds(tensor):
                    self._drawn[name] = (record, record.storage_of(tensor))

    def _fill(self, names: Iterable[str]) -> None:
        targets = self.model.state_dict()
        fresh: dict[RecordedInit, dict[int, Callable[[Tensor], None]]] = {}
        for name in names:
            self._filled.add(name)
            stored = self._stored.get(name_beside_adapters(name))
            if stored is not None:
                load_tensor(targets[name], stored, name)
            elif name in self._drawn:  # others, of a few numbers, had memory and values from the beginning
                record, storage = self._drawn[name]
                # a tied tensor has several names, and one place
                fresh.setdefault(record, {})[storage] = partial(_place, targets[name], name)
        for record, wanted in fresh.items():
            record.play(wanted)
        self.model.restore_constants()


def _place(target: Tensor, name: str, tensor: Tensor) -> None:
    load_tensor(target, MemoryTensor(tensor), name)


def _give_memory(module: nn.Module, device: torch.device) -> None:
    def given(tensor: Tensor) -> Tensor:
        own = tensor.to_local() if is_dtensor(tensor) else tensor
        return torch.empty_like(tensor, device=device) if own.is_meta else tensor

    module._apply(given)
