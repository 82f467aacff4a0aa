"""Tensors into files, one at a time: safetensors in shards with an index, and torch's `.pth`.

A shard is byte for byte what `safetensors.torch.save_file` writes, which however wants all of its tensors at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vargpt_lightning.checkpoints.lazy_tensors import DTYPES, INDEXES, SINGLE, Source, nbytes
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json

MAX_SHARD = 5 * 1000**3
"""Bytes of a shard by default."""

PICKLE_PROTOCOL = 2  # torch's
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = list(DTYPES.values())


def plan_shards(sources: Mapping[str, Source], limit: int = MAX_SHARD) -> list[dict[str, Source]]:
    """Return the tensors in shards of at most `limit` bytes each, or of one tensor that is larger, in their order."""
    shards: list[dict[str, Source]] = [{}]
    filled = 0
    for key, source in sources.items():
        size = nbytes(source)
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][key] = source
        filled += size
    return shards


def write_shards(folder: Path, sources: Mapping[str, Source], limit: int = MAX_SHARD, rank: int = 0) -> list[Path]:
    """Write tensors as `model.safetensors`, or as numbered shards and their index where one file would be too large.

    The folder exists. Where the tensors are gathered from several processes, all of them call this: each reads all
    tensors in the same order, rank 0 writes.

    Raises:
        UserError: a type that safetensors does not know, or a full disk.
    """
    shards = plan_shards(sources, limit)
    count = len(shards)
    names = [SINGLE[0]] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(folder / name, shard, rank)
    if rank == 0 and count > 1:
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        total = sum(map(nbytes, sources.values()))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / INDEXES[0], index)
    return [folder / name for name in names]


def write_safetensors(path: Path, sources: Mapping[str, Source], rank: int = 0) -> None:
    """Write one file, reading one tensor after the other; raises as `write_shards` does."""
    for key, source in sources.items():
        if source.dtype not in _NAMES:
            raise UserError(f"{key}: type {source.dtype} has no place in safetensors; expected {', '.join(DTYPES)}")
    order = sorted(sources, key=lambda key: (_ORDER.index(sources[key].dtype), key))
    if rank != 0:
        for key in order:
            sources[key].part()
        return
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in order:
        begin, end = end, end + nbytes(sources[key])
        dtype, shape = _NAMES[sources[key].dtype], list(sources[key].shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with _replaced(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            file.write(_bytes(sources[key].part()))
        file.flush()
        os.fsync(file.fileno())


def write_pickle(path: Path, sources: Mapping[str, Source], under: str | None = None) -> None:
    """Write a `.pth` as `torch.save` does, reading one tensor after the other.

    Args:
        under: the key of the file at which the tensors lie; None for the file itself.

    Raises:
        UserError: the disk is full.
    """
    with FakeTensorMode():
        described = {key: torch.empty(source.shape, dtype=source.dtype) for key, source in sources.items()}
    with (
        _replaced(path) as temporary,
        torch.serialization._open_zipfile_writer(str(temporary)) as writer,
        torch.serialization.skip_data(materialize_fake_tensors=True),
    ):
        saved: Any = described if under is None else {under: described}
        torch.serialization._save(saved, _Filling(writer, sources), pickle, PICKLE_PROTOCOL, False)


class _Filling:
    """torch's writer, with the tensors in the places that `skip_data` would leave open."""

    def __init__(self, writer: Any, sources: Mapping[str, Source]) -> None:
        self.write_record = writer.write_record
        self._waiting = iter(sources.values())  # numbered as they are described

    def write_record_metadata(self, name: str, size: int) -> None:
        self.write_record(name, _alone(next(self._waiting).part()).untyped_storage(), size)


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data if plain.numel() else memoryview(b"")


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on a storage of its own; torch would write the whole of a shared one."""
    plain = tensor.detach().cpu().contiguous()
    return plain if plain.untyped_storage().nbytes() == plain.nbytes else plain.clone()


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Give a temporary path whose file replaces the one at `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error) or "PytorchStreamWriter" in str(error):
            raise UserError(f"no space left on the disk while writing {path}; nothing of it is kept") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
