"""The drawn pictures of a packed folder encoded to visual tokens: decoded in processes, resumed after a kill.

Each shard becomes a part by itself; parts of shards that are done stay when the process is killed. At the end they are
put together into the arrays that `visual_tokens` describes, with the same bytes as those of an unbroken run.

Shape suffixes: B pictures of a batch, V variants, R rows, P drawn pictures, L visual tokens, H, W, C of pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vargpt_lightning.data.images.pictures import PictureError, PictureReader, decode_picture
from vargpt_lightning.data.packing.pool import in_order
from vargpt_lightning.data.packing.state import locked
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN
from vargpt_lightning.data.visual_tokens.bits import packed, words_of
from vargpt_lightning.data.visual_tokens.codes import (
    BAD_NAME,
    CODES_NAME,
    FORMAT_VERSION,
    INDEX_NAME,
    PICTURES_NAME,
    RECORDS_NAME,
    Recipe,
    name_of,
    other_shards,
)
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256, read_json, write_bytes, write_json, write_jsonl

WORK_NAME = ".tokenizing"
Encode = Callable[[Tensor], Tensor]
Watcher = Callable[[int, int, int, int], None]


@dataclass
class Part:
    """A shard's pictures while they are encoded: what its file will hold.

    `slots` tells for each drawn picture which of the distinct ones it is, `rows` for each of these its first row.
    """

    shard: dict[str, Any]
    begins: list[int] = field(default_factory=lambda: [0])
    names: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    bad: list[dict[str, str]] = field(default_factory=list)
    encoded: int = 0

    def add(self, codes_VL: np.ndarray | None) -> None:
        """Take the codes of the next distinct picture; None for one that could not be decoded."""
        self.rows.append(-1 if codes_VL is None else self.encoded)
        if codes_VL is not None:
            self.codes.append(codes_VL)
            self.encoded += len(codes_VL)

    def save(self, path: Path, width: int) -> None:
        """Write the part; a row of codes has so many numbers."""
        codes_RL = np.concatenate(self.codes) if self.codes else np.empty((0, width), np.uint16)
        rows = [self.rows[slot] for slot in self.slots]
        pictures_P2 = np.array([self.names, rows], dtype=np.int64).T.reshape(-1, 2)
        file = io.BytesIO()
        bad = np.frombuffer(json.dumps(self.bad).encode(), np.uint8)
        begins = np.array(self.begins, np.int64)
        np.savez(file, codes=codes_RL, pictures=pictures_P2, begins=begins, bad=bad)
        write_bytes(path, file.getvalue())


@dataclass(frozen=True)
class Decoding:
    """Pictures that a process decodes: (name, file) each, in all their variants."""

    reader: PictureReader
    pictures: tuple[tuple[str, bytes | None], ...]


@dataclass
class Batch:
    """A decoding that was asked for, where its codes go, and how far the folder is read when they are there."""

    decoding: Decoding
    part: Part
    records: list[str]
    last: bool
    read: int


def tokenize(
    dataset: ShardDataset,
    root: Path,
    recipe: Recipe,
    reader: PictureReader,
    encode: Encode,
    *,
    tokens: int,
    bits: int | None = None,
    processes: int = 1,
    batch_size: int = 64,
    wait: bool = False,
    watch: Watcher | None = None,
) -> Path:
    """Encode the drawn pictures of a packed folder and return the folder below `root` that holds their codes.

    The same call after a kill resumes where it was; with everything there already it returns at once. What was made of
    other shards under the same name is replaced. Pictures that cannot be decoded are counted and listed in bad.jsonl.

    Args:
        recipe: what names the result; `reader` and `encode` are to be what it says.
        encode: takes pictures (B, 3, H, W) as `reader` gives them, and returns codes (B, L), or (B, L, D) in bits.
        tokens: L.
        bits: D, of a token; None for codes that are indices.
        processes: decode pictures; 1 does it in this process.
        batch_size: pictures encoded at once.
        wait: for another process that is at it, instead of refusing.
        watch: called with records done, records, pictures encoded and bad pictures after each batch.

    Raises:
        UserError: a shard is not what the folder's index says, no picture could be decoded, another process is at work
            in the folder, or the disk is full.
    """
    if processes < 1 or batch_size < 1:
        raise UserError(f"processes {processes}, batch size {batch_size}; expected at least 1 of each")
    out = root / recipe.name
    with locked(out / WORK_NAME, "at work in it", wait=wait):
        if (out / INDEX_NAME).is_file():
            if other_shards(read_json(out / INDEX_NAME), dataset.index["shards"]) is None:
                shutil.rmtree(out / WORK_NAME, ignore_errors=True)
                return out
            (out / INDEX_NAME).unlink()
        for path in [*out.glob(".*.tmp"), *(out / WORK_NAME).glob(".*.tmp")]:
            path.unlink(missing_ok=True)
        job = _Job(dataset, out, reader, encode, tokens, bits, batch_size, watch)
        job.run(processes)
        _put_together(dataset, out, recipe, tokens, bits, [job.file(shard) for shard in dataset.index["shards"]])
        shutil.rmtree(out / WORK_NAME, ignore_errors=True)
    return out


@dataclass
class _Job:
    dataset: ShardDataset
    out: Path
    reader: PictureReader
    encode: Encode
    tokens: int
    bits: int | None
    batch_size: int
    watch: Watcher | None
    pictures: int = 0
    bad: int = 0

    def run(self, processes: int) -> None:
        """Make the parts that are not there yet."""
        asked: deque[Batch] = deque()

        def decodings() -> Iterator[Decoding]:
            for batch in self._batches():
                asked.append(batch)
                yield batch.decoding

        for decoded in in_order(decode, decodings(), processes, "decoding pictures"):
            self._take(asked.popleft(), decoded)
        if self.watch is not None:  # the last shards may have been there before
            self.watch(len(self.dataset), len(self.dataset), self.pictures, self.bad)

    def file(self, shard: dict[str, Any]) -> Path:
        """The part of a shard; one of the same name with other bytes has another."""
        return self.out / WORK_NAME / f"{Path(shard['file']).stem}-{shard['sha256'][:16]}.npz"

    def _batches(self) -> Iterator[Batch]:
        first = 0
        for shard in self.dataset.index["shards"]:
            records = range(first, first + shard["count"])
            first = records.stop
            if not self.file(shard).is_file():
                self._verify(shard)
                yield from self._batches_of(shard, records)

    def _batches_of(self, shard: dict[str, Any], records: range) -> Iterator[Batch]:
        """A shard's distinct pictures in batches; the same picture under the same name is encoded once."""
        part, known = Part(shard), dict[tuple[str, bytes], int]()
        waiting: list[tuple[str, bytes | None]] = []
        owners: list[str] = []
        for index in records:
            record = self.dataset[index]
            for picture in record.pictures(DRAWN):
                which = (picture.name, hashlib.blake2b(picture.data or b"", digest_size=16).digest())
                if which not in known:
                    known[which] = len(known)
                    waiting.append((picture.name, picture.data))
                    owners.append(record.id)
                part.slots.append(known[which])
                part.names.append(name_of(picture.name))
            part.begins.append(len(part.slots))
            if (len(waiting) + 1) * self.reader.variants > self.batch_size and waiting:
                yield Batch(Decoding(self.reader, tuple(waiting)), part, owners, False, index + 1)
                waiting, owners = [], []
        yield Batch(Decoding(self.reader, tuple(waiting)), part, owners, True, records.stop)

    def _take(self, batch: Batch, decoded: Sequence[np.ndarray | str]) -> None:
        """Encode what was decoded; write the part when it was the shard's last."""
        part, fine = batch.part, [pixels for pixels in decoded if not isinstance(pixels, str)]
        codes = iter(self._encode(fine))
        for (name, _), record, pixels in zip(batch.decoding.pictures, batch.records, decoded, strict=True):
            if isinstance(pixels, str):
                part.bad.append({"picture": name, "record": record, "reason": pixels})
                self.bad += 1
            part.add(None if isinstance(pixels, str) else next(codes))
        self.pictures += len(fine)
        if batch.last:
            part.save(self.file(part.shard), self.tokens * words_of(self.bits))
        if self.watch is not None:
            self.watch(batch.read, len(self.dataset), self.pictures, self.bad)

    @torch.no_grad()
    def _encode(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """The codes (V, L), of bits in words (V, L W), of pictures (V, H, W, C)."""
        if not pictures:
            return []
        pixels_BHWC = torch.from_numpy(np.concatenate(pictures))
        found = [self.encode(self.reader.scale(pixels)).cpu() for pixels in pixels_BHWC.split(self.batch_size)]
        codes = torch.cat(found).numpy()
        expected = (len(pixels_BHWC), self.tokens, *([] if self.bits is None else [self.bits]))
        if codes.shape != expected:
            raise ValueError(f"codes of shape {codes.shape}; expected {expected}")
        rows_RW = codes.astype(np.uint16) if self.bits is None else packed(codes)
        return list(rows_RW.reshape(len(pictures), -1, rows_RW.shape[1]))

    def _verify(self, shard: dict[str, Any]) -> None:
        path = self.dataset.folder / shard["file"]
        found = file_sha256(path)
        if found != shard["sha256"]:
            raise UserError(f"{path}: sha256 {found[:12]}..., the index says {shard['sha256'][:12]}...; pack it again")


def decode(task: Decoding) -> list[np.ndarray | str]:
    """Return each picture's variants (V, H, W, C), uint8, or why it could not be decoded."""
    return [_decode(task.reader, name, data) for name, data in task.pictures]


def _decode(reader: PictureReader, name: str, data: bytes | None) -> np.ndarray | str:
    try:
        image = decode_picture(data, name)
        return np.stack([reader.pixels(image, name, variant) for variant in range(reader.variants)])
    except PictureError as error:
        return str(error)


def _put_together(
    dataset: ShardDataset, out: Path, recipe: Recipe, tokens: int, bits: int | None, parts: list[Path]
) -> None:
    """Write the arrays of all parts, and the index, which says that all is there, last."""
    pictures, begins, bad = [], [np.zeros(1, np.int64)], []
    rows = drawn = 0
    for path in parts:
        with np.load(path, allow_pickle=False) as part:
            found_P2, codes = part["pictures"], len(part["codes"])
            found_P2[:, 1] += np.where(found_P2[:, 1] < 0, 0, rows)
            pictures.append(found_P2)
            begins.append(part["begins"][1:] + drawn)
            bad += json.loads(part["bad"].tobytes())
        rows, drawn = rows + codes, drawn + len(found_P2)
    if not rows:
        why = f"; the first: {bad[0]['reason']}" if bad else ""
        raise UserError(f"{dataset.folder}: none of its {drawn} drawn pictures could be encoded{why}")
    _write_array(
        out / CODES_NAME, np.uint16, (rows, tokens * words_of(bits)), (np.load(path)["codes"] for path in parts)
    )
    _write_array(out / PICTURES_NAME, np.int64, (drawn, 2), pictures)
    _write_array(out / RECORDS_NAME, np.int64, (len(dataset) + 1,), begins)
    write_jsonl(out / BAD_NAME, bad)
    index = {
        "format": FORMAT_VERSION,
        "made": recipe.to_json(),
        "tokens": tokens,
        **({} if bits is None else {"bits": bits}),
        "counts": {"records": len(dataset), "pictures": drawn, "rows": rows, "bad": len(bad)},
        "shards": [{name: shard[name] for name in ("file", "bytes", "sha256")} for shard in dataset.index["shards"]],
        "versions": package_versions(("torch", "pillow")),
    }
    write_json(out / INDEX_NAME, index)


def _write_array(path: Path, kind: type[np.generic], shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    """Write a .npy file piece by piece, whole or not at all; a memory map would be killed by a full disk."""
    temporary = path.parent / WORK_NAME / f".{path.name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype=kind).tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); the same command resumes") from error
    finally:
        temporary.unlink(missing_ok=True)
