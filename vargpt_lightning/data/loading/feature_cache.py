"""What a frozen network makes of pictures, computed once and kept in memory: the vision tower's features.

What an image tokenizer makes of drawn pictures is kept by `visual_tokens`.

Shape suffixes: B pictures, C colours or channels, H height, W width, N vision patches.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vargpt_lightning.data.images.pictures import PictureError, PictureReader
from vargpt_lightning.data.shards.records import PicturePart, Record, content_key
from vargpt_lightning.utils.errors import UserError

Compute = Callable[[Tensor], Tensor]
_TENSOR = "values"


class PictureCache:
    """Per picture key and variant one tensor: held in memory, kept in a safetensors file.

    `fingerprint` names the network and the way pictures were read; a file with another one is refused. `pictures` is
    the hash of what it was made of (see `hash_of_pictures`).
    """

    def __init__(self, values: Tensor, rows: Mapping[str, list[int]], fingerprint: str, pictures: str = "") -> None:
        self.values, self.rows, self.fingerprint, self.pictures = values, dict(rows), fingerprint, pictures

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def variants_of(self, key: str) -> int:
        """How many variants there are of a picture.

        Raises PictureError for one that could not be decoded, UserError for one that was not there to be cached.
        """
        if key not in self.rows:
            raise UserError(f"picture {key!r}: not in the cache of {len(self.rows)} pictures; make the cache again")
        if not self.rows[key]:
            raise PictureError(f"picture {key!r}: could not be decoded when the cache was made")
        return len(self.rows[key])

    def read(self, data: bytes | None, key: str, variant: int = 0) -> Tensor:
        """Return what is kept of a picture; `data` is not looked at. Raises as `variants_of` does."""
        count = self.variants_of(key)
        return self.values[self.rows[key][variant % count]]

    @classmethod
    def build(
        cls,
        pictures: Mapping[str, bytes],
        reader: PictureReader,
        compute: Compute,
        *,
        network: str,
        path: str | Path | None = None,
        plain: Iterable[str] = (),
        names: Mapping[str, str] | None = None,
        batch_size: int = 16,
    ) -> PictureCache:
        """Return the cache of these pictures: read from `path` when it was made of the very same ones, else computed.

        `compute` takes (B, C, H, W) as `reader` gives it and returns one row a picture; `network` is the hash of its
        weights (see `weights_hash`). Pictures named in `plain` get no variants but themselves; those of the others go
        by `names`, which leads from a key to what the reader is to call the picture: itself by default. Pictures that
        cannot be decoded are remembered as such. Raises UserError when the file at `path` is of another network or
        another reader.
        """
        fingerprint, names = fingerprint_of(network, reader), names or {}
        unvaried = frozenset(plain)
        wanted = {key: 1 if key in unvaried else reader.variants for key in pictures}
        made_of = hash_of_pictures(pictures, wanted, names)
        if path is not None and Path(path).exists():
            cache = cls.load(path, fingerprint)
            if cache.pictures == made_of:
                return cache
        rows: dict[str, list[int]] = {}
        values: list[Tensor] = []
        pending: list[Tensor] = []
        total = 0
        for key, data in pictures.items():
            try:
                read = [reader.read(data, names.get(key, key), variant) for variant in range(wanted[key])]
            except PictureError:
                read = []
            rows[key] = list(range(total, total + len(read)))
            total += len(read)
            pending += read
            while len(pending) >= batch_size:
                values.append(_run(compute, pending[:batch_size]))
                pending = pending[batch_size:]
        if pending:
            values.append(_run(compute, pending))
        if not values:
            raise UserError(f"picture cache: none of {len(pictures)} pictures could be read")
        cache = cls(torch.cat(values), rows, fingerprint, made_of)
        if path is not None:
            cache.save(path)
        return cache

    def save(self, path: str | Path) -> None:
        """Write the cache to a file, whole or not at all; raises UserError when there is no space or permission."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        about = {"fingerprint": self.fingerprint, "pictures": self.pictures, "rows": json.dumps(self.rows)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({_TENSOR: self.values.contiguous()}, str(temporary), metadata=about)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"picture cache {path}: cannot be written ({error})") from error
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, fingerprint: str | None = None) -> PictureCache:
        """Read a cache; raises UserError when it cannot be read, or was made with another network or reader."""
        try:
            with safe_open(str(path), framework="pt") as file:
                about, values = file.metadata(), file.get_tensor(_TENSOR)
            found, rows, pictures = about["fingerprint"], json.loads(about["rows"]), about.get("pictures", "")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"picture cache {path}: cannot be read ({error}); delete it and run again") from error
        if fingerprint is not None and found != fingerprint:
            raise UserError(
                f"picture cache {path}: made with {found}, now it is {fingerprint}: another network or other picture "
                "settings; delete it to have it made again"
            )
        return cls(values, rows, found, pictures)


class FeatureCache(PictureCache):
    """A vision tower's features (N, C) of seen pictures and their variants."""


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return a hash of a network's weights, given as its state dict: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def pictures_of(records: Iterable[Record], use: str) -> dict[str, PicturePart]:
    """Return all pictures of one use ("seen" or "drawn"), by key; of one with several names the first in order."""
    found: dict[str, PicturePart] = {}
    for part in (part for record in records for part in record.pictures(use) if part.data is not None):
        if part.key not in found or part.name < found[part.key].name:
            found[part.key] = part
    return found


def hash_of_pictures(pictures: Mapping[str, bytes], variants: Mapping[str, int], names: Mapping[str, str]) -> str:
    """Return a hash of pictures, their keys and how many variants there are of each; varied ones go by their names."""
    digest = hashlib.sha256()
    for key in sorted(pictures):
        name = names.get(key, key) if variants[key] > 1 else ""
        digest.update(json.dumps([key, content_key(pictures[key]), variants[key], name]).encode())
    return digest.hexdigest()[:32]


def fingerprint_of(network: str, reader: PictureReader) -> str:
    """Return what tells caches apart: the network, and all settings by which pictures are read."""
    values = asdict(reader)
    if not reader.tokens:
        del values["tokens"]  # of which only pictures in their own shape have some
    settings = json.dumps(values, sort_keys=True, default=list)
    return f"{network}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


@torch.no_grad()
def _run(compute: Compute, pictures: list[Tensor]) -> Tensor:
    values = compute(torch.stack(pictures)).detach().cpu()
    if len(values) != len(pictures):
        raise ValueError(f"picture cache: {len(values)} rows for {len(pictures)} pictures; expected one each")
    return values.clone()
