"""Tensors that lie in files and are read one at a time, or in part: safetensors, `.pth`, and folders of either.

Opening a file reads where its tensors lie and nothing else. `FileTensor.part` maps the bytes of one tensor, so that
the pages that are not asked for are never read, and gives the mapping back with the tensor that stood on it.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

DTYPES: dict[str, torch.dtype] = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by the names that safetensors files give them, in the order in which it writes them."""

SAFETENSORS, PICKLES = (".safetensors",), (".pth", ".pt", ".bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NESTED = (("trainer", "gpt_fsdp"), ("vae",))
"""Where weights lie in a training checkpoint of Infinity's, and in a file of its image tokenizer."""
SINGLE = ("model.safetensors", "pytorch_model.bin")


class Source(Protocol):
    """A tensor to be had in whole or in part: its shape and type are known before it is read."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def part(self, *where: slice) -> Tensor:
        """Return the tensor cut by the slices, one for each of the first dimensions; without any, all of it."""
        ...


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a file.

    Args:
        file: where it lies.
        key: its name there.
        offset: first byte of its storage.
        count: elements of its storage, which a view shares with others.
        stride, start: in elements, as for `torch.as_strided`; None for a tensor row by row.
    """

    file: Path
    key: str
    shape: torch.Size
    dtype: torch.dtype
    offset: int
    count: int
    stride: tuple[int, ...] | None = None
    start: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor by itself."""
        return math.prod(self.shape) * self.dtype.itemsize

    def part(self, *where: slice) -> Tensor:
        """Return the tensor, or what the slices leave of it, on pages of the file; writing to it changes no file."""
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=self.dtype)[where]
        size = self.count * self.dtype.itemsize
        raw = torch.from_numpy(np.memmap(self.file, np.uint8, "c", self.offset, (size,)))
        # what begins at an odd address cannot be viewed as wider numbers
        raw = raw if raw.data_ptr() % self.dtype.itemsize == 0 else raw.clone()
        flat = raw.view(self.dtype)
        whole = flat.view(self.shape) if self.stride is None else flat.as_strided(self.shape, self.stride, self.start)
        return whole[where] if where else whole


@dataclass(frozen=True)
class MemoryTensor:
    """A tensor in memory, to be used like a stored one."""

    tensor: Tensor
    key: str = ""
    file: Path | None = None

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def part(self, *where: slice) -> Tensor:
        return self.tensor[where] if where else self.tensor


@dataclass(frozen=True)
class Finite:
    """A tensor that is refused when a part that is read holds a NaN or an infinite number; a `Source`."""

    stored: Source
    key: str

    @property
    def shape(self) -> torch.Size:
        return self.stored.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    def part(self, *where: slice) -> Tensor:
        return finite(self.stored.part(*where), self.key, getattr(self.stored, "file", None))


def finite(tensor: Tensor, key: str, file: Path | None = None) -> Tensor:
    """Return a tensor of weights.

    Raises:
        UserError: it holds a NaN or an infinite number: what is computed with it would be none.
    """
    if tensor.is_floating_point() and not tensor.is_meta and tensor.numel():
        plain = tensor.float() if tensor.dtype.itemsize == 1 else tensor
        # the extremes are NaN where any number is; unlike a comparison they take no memory
        if not bool(torch.stack(plain.aminmax()).isfinite().all()):
            nans, count = int(plain.isnan().sum()), int((~torch.isfinite(plain)).sum())
            what = f"{nans} NaN and {count - nans} infinite of {plain.numel()} numbers"
            raise UserError(f"{f'{file}: ' if file else ''}{key} holds {what}; expected finite weights")
    return tensor


def nbytes(source: Source) -> int:
    """Return the bytes of a tensor that need not be read for that."""
    return math.prod(source.shape) * source.dtype.itemsize


def open_weights(path: Path) -> dict[str, FileTensor | MemoryTensor]:
    """Return the tensors of a file, or of a folder with `model.safetensors` or shards and their index.

    Nothing is read but where they lie, except from files in torch's format before version 1.6.

    Raises:
        UserError: there is no such file, it is broken, it holds other things than tensors, or an index names a shard
            or a tensor that is not there.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file or folder; expected weights")
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    if path.suffix in SAFETENSORS:
        return dict(_open_safetensors(path))
    if path.suffix in PICKLES:
        return _open_pickle(path)
    known = ", ".join([*SAFETENSORS, *PICKLES])
    raise UserError(
        f"{path}: the suffix {path.suffix!r} is not known for weights; expected one of {known}, or a folder"
    )


def _open_folder(folder: Path) -> dict[str, FileTensor | MemoryTensor]:
    for name in INDEXES:
        if (folder / name).is_file():
            return _open_shards(folder / name)
    for name in SINGLE:
        if (folder / name).is_file():
            return open_weights(folder / name)
    there = sorted(file for file in folder.iterdir() if file.suffix in SAFETENSORS + PICKLES)
    if len(there) == 1:
        return open_weights(there[0])
    names = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    more = f"; name one of its {len(there)} files of weights" if there else ""
    raise UserError(f"{folder}: holds {names}; expected {SINGLE[0]}, or shards with {INDEXES[0]}{more}")


def _open_shards(index: Path) -> dict[str, FileTensor | MemoryTensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{index}: holds no `weight_map`; expected the names of tensors, each with its shard")
    found: dict[str, FileTensor | MemoryTensor] = {}
    for name in dict.fromkeys(map(str, places.values())):
        shard = index.parent / name
        if shard.name != name:
            raise UserError(f"{index}: names the shard {name!r}; expected a file beside the index")
        if not shard.is_file():
            raise UserError(f"{index}: names the shard {name}, which is not there")
        found |= {key: value for key, value in open_weights(shard).items() if places.get(key) == name}
    if missing := [key for key in places if key not in found]:
        raise UserError(f"{index}: {len(missing)} of its tensors are not in their shards, such as {missing[0]}")
    return found


def _open_safetensors(path: Path) -> Iterator[tuple[str, FileTensor]]:
    try:
        with safe_open(path, "pt"):  # checks the header, and that all tensors lie in the file
            pass
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as safetensors: {error}") from error
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    for key, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"][0]):
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{path}: {key} has the type {entry['dtype']}; expected one of {', '.join(DTYPES)}")
        shape = torch.Size(entry["shape"])
        dtype, offset = DTYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0]
        yield key, FileTensor(path, key, shape, dtype, offset, math.prod(shape))


def _open_pickle(path: Path) -> dict[str, FileTensor | MemoryTensor]:
    state = _inside(_load(path, FakeTensorMode()))
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(_no_tensors(path, state))
    offsets = {key: getattr(value.untyped_storage(), "_checkpoint_offset", None) for key, value in state.items()}
    if any(offset is None for offset in offsets.values()):  # the older format, whose tensors cannot be found by place
        return {key: MemoryTensor(value.detach(), key, path) for key, value in _inside(_load(path, None)).items()}
    found: dict[str, FileTensor | MemoryTensor] = {}
    for key, value in sorted(state.items(), key=lambda item: offsets[item[0]] or 0):
        if value.layout != torch.strided or value.is_quantized:
            raise UserError(f"{path}: {key} is a sparse or quantized tensor; expected plain ones")
        plain = value.is_contiguous() and value.storage_offset() == 0
        found[key] = FileTensor(
            path,
            key,
            value.shape,
            value.dtype,
            int(offsets[key] or 0),
            value.numel() if plain else value.untyped_storage().nbytes() // value.dtype.itemsize,
            None if plain else tuple(value.stride()),
            value.storage_offset(),
        )
    return found


def _inside(loaded: Any) -> Any:
    """The weights of a file that holds other things beside them, in one of the known places; else what was loaded."""
    for places in NESTED:
        inner = loaded
        for place in places:
            inner = inner.get(place) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return inner
    return loaded


def _load(path: Path, mode: FakeTensorMode | None) -> Any:
    """What a file holds; under fake tensors their data stay in the file."""
    try:
        if mode is None:
            return torch.load(path, map_location="cpu", weights_only=True)
        with mode:
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({name[1]})" if name else ""
        raise UserError(
            f"{path}: holds more than tensors{what}, and opening such a file could run code, so it is refused. If you "
            "trust it, take the tensors out once, on a machine without anything to lose: "
            'torch.save({name: tensor, ...}, "weights.pth") after torch.load(..., weights_only=False); then give '
            "weights.pth here"
        ) from error
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, AssertionError, IndexError) as error:
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise UserError(f"{path} is not readable as weights of torch: {reason}") from error


def _no_tensors(path: Path, state: Any) -> str:
    if not isinstance(state, dict):
        return f"{path}: holds a {type(state).__name__}; expected names of tensors, each with its tensor"
    names = ", ".join(map(str, list(state)[:6])) or "no keys"
    hint = "; of a training checkpoint, give the run's folder" if "pytorch-lightning_version" in state else ""
    return f"{path}: holds {names}; expected names of tensors, each with its tensor{hint}"


class LastRow:
    """A table of zeros with a stored one's last row at its end; a `Source`."""

    def __init__(self, stored: Source, rows: int) -> None:
        self.stored, self.shape, self.dtype = stored, torch.Size((rows, *stored.shape[1:])), stored.dtype

    def part(self, *where: slice) -> Tensor:
        """Return the table, or a part of it."""
        table_NC = torch.zeros(self.shape, dtype=self.dtype)
        table_NC[-1] = self.stored.part()[-1]
        return table_NC[where] if where else table_NC
