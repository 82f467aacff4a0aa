"""Features of a list of pictures, kept on the disk while they are measured: killed, the same command resumes.

The list is cut into batches by place, and a batch belongs to one process: a picture sees the same neighbours whatever
the number of processes, so its features are the same to the last bit. Memory holds a few batches and the sums.

Shapes: N pictures of the list, B of a batch, D feature channels.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.features.feature_sums import FeatureSums
from vargpt_lightning.evaluation.features.finite import check_rows
from vargpt_lightning.evaluation.features.inception import FeatureExtractor
from vargpt_lightning.evaluation.images.picture_lists import PictureFile, check_sizes
from vargpt_lightning.utils.errors import UserError

WAITING, DONE, BROKEN = 0, 1, 2
READERS, BATCHES_AHEAD = 2, 3
_HASH_BYTES = 16

Progress = Callable[[str, int, int], None]
Prepare = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Measured:
    """Sums and features by layer of the pictures that decode; `digest` names the list with its contents."""

    sums: dict[str, FeatureSums]
    features: dict[str, Tensor]
    count: int
    broken: int
    digest: str


class FeatureStore:
    """Files of features, states and hashes, one row a picture, shared by all processes."""

    def __init__(self, folder: Path, count: int, sizes: dict[str, int], processes: Processes) -> None:
        self.folder = folder
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "state": ((count,), np.uint8),
            "hash": ((count, _HASH_BYTES), np.uint8),
        }
        shapes |= {f"layer-{layer}": ((count, size), np.float32) for layer, size in sizes.items()}
        if processes.first:
            folder.mkdir(parents=True, exist_ok=True)
            # the states come last: a store without them was killed while it was made, and is made again
            for name, (shape, kind) in sorted(shapes.items(), key=lambda item: item[0] == "state"):
                if not (folder / "state").is_file():
                    with open(folder / f"{name}.new", "wb") as file:
                        file.truncate(int(np.prod(shape)) * np.dtype(kind).itemsize)
                    (folder / f"{name}.new").rename(folder / name)
        processes.wait()
        self.arrays = {
            name: np.memmap(folder / name, dtype=kind, mode="r+", shape=shape) for name, (shape, kind) in shapes.items()
        }

    @property
    def state(self) -> np.ndarray:
        return self.arrays["state"]

    def write(self, places: Sequence[int], features: dict[str, Tensor], hashes: Sequence[bytes]) -> None:
        """Writes one batch; it counts as done only when all of it is on the disk."""
        for place, value in zip(places, hashes, strict=True):
            self.arrays["hash"][place] = np.frombuffer(value, np.uint8)
        for layer, rows in features.items():
            self.arrays[f"layer-{layer}"][places] = rows.numpy()
        for name, array in self.arrays.items():
            if name != "state":
                array.flush()

    def mark(self, places: Sequence[int], value: int) -> None:
        self.state[list(places)] = value
        self.arrays["state"].flush()

    def rows(self, layer: str, places: Sequence[int]) -> Tensor:
        """Stored features of these places, (B, D)."""
        return torch.from_numpy(np.array(self.arrays[f"layer-{layer}"][list(places)]))

    def remove(self) -> None:
        """Deletes the files: the measurement is finished."""
        self.arrays.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure_features(
    files: Sequence[PictureFile],
    extractor: FeatureExtractor,
    folder: Path,
    *,
    sum_layers: Collection[str] = ("2048",),
    keep_layers: Collection[str] = (),
    batch_size: int = 64,
    allow: Collection[str] = (),
    prepare: Prepare | None = None,
    prepared_as: str = "",
    processes: Processes | None = None,
    progress: Progress | None = None,
    title: str = "features",
) -> Measured:
    """Measures every picture of the list once, over all processes, and returns the same in each of them.

    Args:
        folder: where unfinished work is kept.
        sum_layers: layers whose sums are wanted; `keep_layers`: those whose features are wanted, in the list's order.
        allow: with "broken" pictures that do not decode are left out and counted.
        prepare: changes a picture before the extractor's own resize; `prepared_as` names it.

    Raises:
        UserError: a picture that does not decode unless allowed, naming it; pictures of several sizes without
            `prepare`; no pictures at all.
    """
    processes = processes or Processes()
    if not files:
        raise UserError("no pictures to measure; expected some")
    batches = [list(range(start, min(start + batch_size, len(files)))) for start in range(0, len(files), batch_size)]
    stamp = [[file.id, str(file.path), *_stat(file.path)] for file in files]
    key = short_hash(stamp, extractor.about, extractor.layers, batch_size, prepared_as)
    store = FeatureStore(folder / key, len(files), extractor.sizes(), processes)
    sizes = extractor.sizes()
    sums = {layer: FeatureSums.empty(sizes[layer], {**extractor.about, "layer": layer}) for layer in sum_layers}
    own = processes.share(batches)
    reader = _Reader(files, extractor, prepare, "broken" in allow)
    pending = [batch for batch in own if (store.state[batch] == WAITING).any()]
    if pending and prepare is None:
        check_sizes(files, allow)
    done = sum(len(batch) for batch in own) - sum(len(batch) for batch in pending)
    total = sum(len(batch) for batch in own)
    for places, pictures, hashes, broken in reader.read(pending):
        good = [place for place in places if place not in broken]
        features = extractor(torch.stack(pictures)) if good else {}
        for layer, rows in features.items():
            check_rows(rows, [files[place].path for place in good], f"{extractor.name}, layer {layer}")
        store.write(good, features, hashes)
        store.mark(broken, BROKEN)
        store.mark(good, DONE)
        done += len(places)
        if progress is not None:
            progress(title, done, total)
    # summed from the stored rows, in the list's order: the same after a kill as without one
    for batch in own:
        good = [place for place in batch if store.state[place] == DONE]
        for layer, sum_ in sums.items():
            if good:
                sum_.add(store.rows(layer, good))
    for sum_ in sums.values():
        sum_.merge(processes)
    processes.wait()
    return _finish(files, store, sums, keep_layers)


def _finish(
    files: Sequence[PictureFile], store: FeatureStore, sums: dict[str, FeatureSums], keep_layers: Collection[str]
) -> Measured:
    state = np.array(store.state)
    good = np.flatnonzero(state == DONE)
    broken = int((state == BROKEN).sum())
    if len(good) + broken != len(files) or any(sum_.count != len(good) for sum_ in sums.values()):
        raise RuntimeError(f"{len(good)} pictures measured and {broken} broken of {len(files)}: the counts disagree")
    digest = hashlib.sha256()
    for place in good:
        digest.update(files[int(place)].id.encode() + b"\0" + bytes(store.arrays["hash"][place]))
    kept = {}
    for layer in keep_layers:
        rows = torch.from_numpy(store.arrays[f"layer-{layer}"])
        kept[layer] = rows if not broken else rows[torch.from_numpy(good)]
    for sum_ in sums.values():
        sum_.about |= {"list": digest.hexdigest()[:16]}
    return Measured(sums, kept, len(good), broken, digest.hexdigest()[:16])


class _Reader:
    """Reads, decodes and resizes batches in threads, a few batches ahead of the network."""

    def __init__(
        self, files: Sequence[PictureFile], extractor: FeatureExtractor, prepare: Prepare | None, skip: bool
    ) -> None:
        self.files, self.extractor, self.prepare, self.skip = files, extractor, prepare, skip

    def read(self, batches: Sequence[list[int]]) -> Iterator[tuple[list[int], list[Tensor], list[bytes], list[int]]]:
        """Yields places, the good pictures and their hashes, and the broken places, batch by batch."""
        waiting: deque[tuple[list[int], list[Future[Any]]]] = deque()
        left = iter(batches)
        with ThreadPoolExecutor(READERS) as pool:
            try:
                while True:
                    while len(waiting) < BATCHES_AHEAD and (batch := next(left, None)) is not None:
                        waiting.append((batch, [pool.submit(self._one, place) for place in batch]))
                    if not waiting:
                        return
                    places, futures = waiting.popleft()
                    found = [future.result() for future in futures]
                    good = [one for one in found if one is not None]
                    broken = [place for place, one in zip(places, found, strict=True) if one is None]
                    yield places, [one[0] for one in good], [one[1] for one in good], broken
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, place: int) -> tuple[Tensor, bytes] | None:
        path = self.files[place].path
        try:
            data = path.read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                # as the libraries do: what is transparent loses its transparency, and nothing is turned
                shown = picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if self.skip:
                return None
            raise UserError(f"{path}: does not decode ({error}); mend it, or add --allow broken") from error
        if self.prepare is not None:
            shown = self.prepare(shown)
        return self.extractor.prepare(shown), hashlib.sha256(data).digest()[:_HASH_BYTES]


def resize_and_crop(size: int) -> Prepare:
    """The short side to `size` and the middle square, as torch-fidelity's `samples_resize_and_crop`."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    both: Any = Compose([Resize(size), CenterCrop(size)])
    return lambda picture: both(picture)


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
