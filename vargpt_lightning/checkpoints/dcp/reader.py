"""Reading of distributed checkpoints that runs nothing, whoever wrote them.

torch's own reader unpickles `.metadata` and the entries that are no tensors without a look at what they call. Here the
former may name what torch.distributed.checkpoint itself writes into it, and nothing else; the latter are read as
weights are.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem

from vargpt_lightning.utils.errors import UserError

METADATA = ".metadata"
_MODULE = "torch.distributed.checkpoint"
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
)
ALLOWED = frozenset(
    {
        *((f"{_MODULE}.metadata", name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
        *((f"{_MODULE}.metadata", f"{kind}StorageMetadata") for kind in ("Tensor", "Bytes", "Chunk")),
        (f"{_MODULE}.metadata", "_MEM_FORMAT_ENCODING"),
        (f"{_MODULE}.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        *(("torch", name) for name in _DTYPES),
        # where the folder lay when it was written: a name, that opens nothing
        *((module, kind) for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
        *((module, "PurePosixPath") for module in ("pathlib", "pathlib._local")),
    }
)
"""All that a `.metadata` may name, as module and name; looked up as a whole, so that no dotted name leads elsewhere."""


_PlainUnpickler: Any = pickle._Unpickler


class _Unpickler(_PlainUnpickler):  # the one in Python, whose steps can be looked at
    """Knows the classes of `ALLOWED`, and changes none of them: the pickle may fill objects that it has made alone."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PlainUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)

    def load_build(self) -> None:
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(f"it changes {self.stack[-2]!r}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def read_metadata(folder: Path) -> Metadata:
    """Return what lies where in a distributed checkpoint.

    Raises:
        UserError: its `.metadata` is missing or broken, or names anything but what torch writes into one; or it points
            outside of its folder.
    """
    file = folder / METADATA
    try:
        with open(file, "rb") as stream:
            found = _Unpickler(stream).load()
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: is no metadata of a distributed checkpoint ({error}); opening such a file could run code, so it "
            "is refused"
        ) from error
    except Exception as error:  # a torn or foreign pickle raises many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{file}: cannot be read ({reason}); expected what torch.distributed.checkpoint writes"
        ) from error
    _check(file, found)
    return found


def _check(file: Path, found: Any) -> None:
    """Refuse what is not of the form that torch writes."""
    parts = (getattr(found, name, None) for name in ("state_dict_metadata", "storage_data"))
    entries, places = (part if isinstance(part, dict) else {None: None} for part in parts)
    fits = (
        isinstance(found, Metadata)
        and all(isinstance(key, str) for key in entries)
        and all(isinstance(entry, (TensorStorageMetadata, BytesStorageMetadata)) for entry in entries.values())
        and all(isinstance(index, MetadataIndex) for index in places)
    )
    chunks = [chunk for entry in entries.values() for chunk in getattr(entry, "chunks", ())] if fits else []
    if not fits or not all(isinstance(chunk, ChunkStorageMetadata) for chunk in chunks):
        raise UserError(
            f"{file}: is no metadata of a distributed checkpoint; expected names of tensors and their places"
        )
    for place in places.values():
        name = getattr(place, "relative_path", None)
        plain = isinstance(name, str) and Path(name).name == name and name not in (".", "..")
        if not isinstance(place, _StorageInfo) or not plain or getattr(place, "transform_descriptors", None):
            raise UserError(f"{file}: points to {name!r}; expected plain files of its own folder")


class FolderReader(dcp.FileSystemReader):
    """torch's reader of a folder, whose metadata are read once and as `read_metadata` does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self._metadata: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        if self._metadata is None:
            self._metadata = read_metadata(self._folder)
            self._metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return self._metadata


class _PlainEntries:
    """Of a planner: entries that are no tensors are read as weights are, where torch's runs what they call."""

    flatten_state_dict: bool
    original_state_dict: dict[str, Any]
    state_dict: dict[str, Any]
    mappings: dict[str, Any]

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        try:
            plain = torch.load(value, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(f"{name}: holds more than tensors and plain values, so it is refused") from error
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], plain)
        else:
            self.state_dict[name] = plain


class FillPlanner(_PlainEntries, DefaultLoadPlanner):
    """Fills the tensors that are given."""


class WholePlanner(_PlainEntries, _EmptyStateDictLoadPlanner):
    """Makes all tensors that there are."""
