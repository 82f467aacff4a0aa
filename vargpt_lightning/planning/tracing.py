"""Tracing a step on tensors that hold no data.

Parameters and pictures lie on torch's meta device; what steers the model (token ids, masks) is small and real. A
dispatch mode lets the two meet, keeps account of every storage that is alive, and counts floating-point operations with
the formulas of torch's own flop counter. On real tensors the same mode measures instead of predicting.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from vargpt_lightning.planning.kernels import Target, device_kernels, workspace
from vargpt_lightning.planning.trace import CATEGORIES, Mark, Trace

aten = torch.ops.aten
CUDA_BLOCK = 512
"""Bytes that CUDA's caching allocator rounds up to."""
FLOPS: dict[Any, Any] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}
"""torch's formulas, and the CPU's attention, which the flop counter does not know."""
PICKED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
WHOLE_NUMBERS = (torch.int64, torch.int32, torch.bool, torch.uint8)


class StepTracer(TorchDispatchMode):
    """Account of storages and operations while it is entered.

    Args:
        target: whose kernels and allocator are meant; for real tensors "cpu".
    """

    def __init__(self, target: Target = "cuda") -> None:
        super().__init__()
        self.target: Target = target
        self.phase = ""
        self._alive = [0] * len(CATEGORIES)
        self._standing: dict[int, Any] = {}
        self._known: dict[int, tuple[int, int]] = {}
        self._references: dict[int, Any] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._marks: list[Mark] = []
        self._gradients: list[tuple[int, str]] = []
        self._operations: list[str] = []

    def stand(self, tensors: Iterator[Tensor] | Sequence[Tensor]) -> None:
        """Leave tensors that stand before the step (parameters, buffers) out of the account."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._standing[storage._cdata] = storage  # kept, so that its address stays its own

    def know(self, tensor: Tensor, category: str) -> None:
        """Put a tensor's storage into a category, moved there if it is known already."""
        storage = tensor.untyped_storage()
        key, place = storage._cdata, CATEGORIES.index(category)
        if key in self._standing:
            return
        if key in self._known:
            before, size = self._known[key]
            self._alive[before] -= size
        else:
            size = storage.nbytes()
            size = -(-size // CUDA_BLOCK) * CUDA_BLOCK if self.target == "cuda" else size
            self._references[key] = weakref.ref(storage, lambda _, key=key: self._forget(key))  # type: ignore[misc]
        self._known[key] = (place, size)
        self._alive[place] += size

    def mark(self, what: str, name: str = "") -> None:
        """Note a boundary before the next operation."""
        self._marks.append(Mark(len(self._rows), what, name))

    def begin(self, phase: str) -> None:
        """Begin a phase of the step: forward, backward or optimizer."""
        self.phase = phase
        self.mark("phase", phase)

    def gradient(self, parameter: nn.Parameter, name: str) -> None:
        """Note that a parameter's gradient was accumulated."""
        if parameter.grad is not None:
            self.know(parameter.grad, "gradients")
        self._gradients.append((len(self._rows), name))

    def note(self) -> None:
        """Add a row for what changed without an operation."""
        self._row("note", 0, 0, 0)

    def trace(self) -> Trace:
        """Return the account so far."""
        alive_RK = np.array([row[0] for row in self._rows], dtype=np.int64).reshape(-1, len(CATEGORIES))
        changes_RK = np.diff(alive_RK, axis=0, prepend=np.zeros((1, len(CATEGORIES)), dtype=np.int64))
        flops_R, moved_R, extra_R = (np.array([row[at] for row in self._rows], dtype=np.int64) for at in (1, 2, 3))
        recomputed_R = np.array([row[4] for row in self._rows], dtype=bool)
        lists = (self._marks, self._gradients, self._operations)
        return Trace(changes_RK, flops_R, moved_R, extra_R, recomputed_R, *lists)

    def _row(self, name: str, flops: int, moved: int, extra: int) -> None:
        self._rows.append((tuple(self._alive), flops, moved, extra, self._recomputing()))
        self._operations.append(name)

    def _forget(self, key: int) -> None:
        place, size = self._known.pop(key)
        self._alive[place] -= size
        self._references.pop(key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = _run(func, args, kwargs)
        packet = func._overloadpacket
        category = "activations" if self.phase == "forward" or self._recomputing() else "temporaries"
        fresh = False
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor) and not self._is_known(tensor):
                self.know(tensor, category)
                fresh = True
        moved = _moved(args, kwargs, out) if fresh or func._schema.is_mutable else 0
        flops = int(FLOPS[packet](*args, **kwargs, out_val=out)) if packet in FLOPS else 0
        extra = workspace(packet, args, out) if self.target == "cpu" else 0
        self._row(packet.__name__, flops, moved, extra)
        return out

    def _recomputing(self) -> bool:
        """Whether activations are being computed again; inside of a function's own forward no gradients are taken."""
        if self.phase != "backward":
            return False
        return torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None

    def _is_known(self, tensor: Tensor) -> bool:
        key = tensor.untyped_storage()._cdata
        return key in self._known or key in self._standing


def _moved(args: Any, kwargs: Any, out: Any) -> int:
    tensors = [each for each in tree_iter((args, kwargs, out)) if isinstance(each, Tensor)]
    return sum(each.numel() * each.element_size() for each in tensors)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation; where tensors without data are among its arguments, the real ones lose theirs.

    Whole numbers that the model makes on the meta device become real: they say how long sequences are.
    """
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    empty = [each for each in tensors if each.is_meta]
    if not empty:
        return func(*args, **_with_data(func, tensors, kwargs))
    if func is aten._local_scalar_dense.default:
        return 1  # only logs read numbers of losses back
    if func in PICKED:  # how many a mask picks is in its values
        indices = [position for index in args[1] for position in _positions(index)]
        args = (args[0], indices, *args[2:])
    args, kwargs = tree_map_only(Tensor, _without_data, (args, kwargs))
    return func(*args, **kwargs)


def _with_data(func: Any, tensors: list[Tensor], kwargs: dict[str, Any]) -> dict[str, Any]:
    device = kwargs.get("device")
    if device is None or torch.device(device).type != "meta":
        return kwargs
    kind = kwargs.get("dtype") or (tensors[0].dtype if tensors else None)
    whole = kind in WHOLE_NUMBERS or (kind is None and not tensors and func._overloadpacket is aten.arange)
    return {**kwargs, "device": torch.device("cpu")} if whole else kwargs


def _positions(index: Tensor | None) -> Sequence[Tensor | None]:
    if index is None or index.is_meta or index.dtype not in (torch.bool, torch.uint8):
        return [index]
    return index.nonzero(as_tuple=True)


def _without_data(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


@contextmanager
def watched(tracer: StepTracer, model: nn.Module, blocks: dict[str, nn.Module]) -> Iterator[None]:
    """Let the tracer see where each block's forward and backward pass begins and ends, and each gradient."""
    handles = []
    for name, block in blocks.items():
        handles.append(block.register_forward_pre_hook(_Begin(tracer, name), with_kwargs=True))
        handles.append(block.register_forward_hook(_End(tracer, name)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            handles.append(
                parameter.register_post_accumulate_grad_hook(lambda given, name=name: tracer.gradient(given, name))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Begin:
    """At the beginning of a block's forward pass: the end of its backward pass is when its inputs have gradients."""

    def __init__(self, tracer: StepTracer, name: str) -> None:
        self.tracer, self.name = tracer, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.tracer.phase != "forward":
            return
        self.tracer.note()  # the block before it has let its inputs go: that is of its rows still
        self.tracer.mark("forward", self.name)
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor) and tensor.requires_grad and tensor.dim() == 3:
                tensor.register_hook(self._ended)
                return

    def _ended(self, gradient: Tensor) -> None:
        self.tracer.mark("end_backward", self.name)


class _End:
    """At the end of a block's forward pass: its backward pass begins when its output has a gradient."""

    def __init__(self, tracer: StepTracer, name: str) -> None:
        self.tracer, self.name = tracer, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.tracer.phase != "forward":
            return
        self.tracer.mark("end_forward", self.name)
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda gradient: self.tracer.mark("backward", self.name))
                return


@contextmanager
def tracing(
    target: Target, model: nn.Module, blocks: dict[str, nn.Module], beside: dict[str, nn.Module] | None = None
) -> Iterator[StepTracer]:
    """Trace what happens inside: `begin` the phases, and take `trace()` at the end.

    Args:
        beside: blocks of a frozen copy of the model by the same names; those that both share are in `blocks` alone.
    """
    tracer = StepTracer(target)
    tracer.stand([*model.parameters(), *model.buffers()])
    with watched(tracer, model, blocks), watched(tracer, nn.Module(), beside or {}), device_kernels(target), tracer:
        yield tracer
