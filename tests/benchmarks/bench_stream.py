"""Streaming against plain reading of the same shards: python -m tests.benchmarks.bench_stream [--processes 2]

Packs questions about JPEG pictures and requests to draw them, and reads them twice, with the same number of processes:

- plainly: each process reads its share of the tars from the front to the end and decodes every picture;
- as training does: shuffled, template, tokenization, pictures as tensors of the model's size, collation, and the
  batches handed to the training process. (There they are scaled from bytes to numbers, on the device.)

A third reading is plain, and fits the pictures to the model's size as training does, with Pillow. Texts are of twenty
thousand words, as frequent as in a language (Zipf's law).

Runs take turns and the best of each counts. Printed are samples a second, samples a second of processor time (what
counts on a machine that does other things too), both as ratios (1: as fast as plain reading), and the memory that a
worker has of its own over a run that is not timed (flat: no growth after the first tenth). `--stored` is the pictures'
size in the shards, `--size` the model's: where they differ, resizing comes on top of what is compared with.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image

from vargpt_lightning.data.images.pictures import LevelReader, PictureReader, make_square
from vargpt_lightning.data.loading.collate import Collator
from vargpt_lightning.data.loading.examples import ExampleMaker
from vargpt_lightning.data.loading.loader import StreamLoader, stream_loader
from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

WORDS = 20_000
SENTENCE = "a the red small dog house under bright street with two people near water and trees in front of it"
COMMON = SENTENCE.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1500, help="of each of the two corpora")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--stored", type=int, nargs=2, default=(256, 256), help="width and height in the shards")
    parser.add_argument("--size", type=int, default=256, help="of the model's pictures")
    parser.add_argument("--resizing", choices=("pillow", "torch"), default="pillow", help="as the setting of this name")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folders = pack(Path(folder), arguments.records, tuple(arguments.stored))
        compare(folders, arguments)


def pack(root: Path, records: int, stored: tuple[int, int]) -> dict[str, Path]:
    """Write the two corpora, of pictures with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    files = [photograph(rng, *stored) for _ in range(64)]
    folders = {}
    for use in (SEEN, DRAWN):
        folders[use] = root / use
        rows = (record(number, use, files[number % len(files)], rng) for number in range(records))
        write_source(rows, folders[use], split="train", shard_bytes=4 * 2**20)
    print(
        f"{2 * records} records, {stored[0]} x {stored[1]} JPEG of {np.mean([len(file) for file in files]):.0f} bytes"
    )
    return folders


def photograph(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG of noise whose power falls with frequency as in photographs (about 0.6 bytes a pixel at quality 90)."""
    fall = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / max(width, height)
    grey = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / fall**1.1, s=(height, width))
    colour = np.stack([grey + 0.2 * np.roll(grey, shift, axis=1) for shift in (0, 3, 9)], axis=-1)
    pixels = (128 + 50 * (colour - colour.mean()) / colour.std()).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@cache
def language() -> tuple[list[str], np.ndarray]:
    """TextDelta, the common ones first, and how many of a thousand are among the first of them."""
    rng = np.random.default_rng(1)
    letters = list("etaoinshrdlucmfwypvbgk")
    words = COMMON + ["".join(rng.choice(letters, size)) for size in rng.integers(3, 11, WORDS)]
    shares = np.cumsum(1 / (np.arange(len(words)) + 2.7))
    return words, shares / shares[-1]


def sentence(rng: np.random.Generator, count: int) -> str:
    words, shares = language()
    return " ".join(words[place] for place in np.searchsorted(shares, rng.random(count))).capitalize() + "."


def record(number: int, use: str, data: bytes, rng: np.random.Generator) -> Record:
    picture = PicturePart(use, f"{use}-{number}", data)
    if use == DRAWN:
        turns = [Turn("user", (TextPart("Can you draw " + sentence(rng, 12)),))]
        turns.append(Turn("assistant", (TextPart(sentence(rng, 8)), picture)))
    else:
        turns = [
            Turn("user", (picture, TextPart(sentence(rng, 15)))),
            Turn("assistant", (TextPart(sentence(rng, 40)),)),
        ]
        for _ in range(2):
            turns += [Turn("user", (TextPart(sentence(rng, 12)),)), Turn("assistant", (TextPart(sentence(rng, 30)),))]
    return Record(f"{use}-{number}", "bench", tuple(turns), {})


def read_plainly(shards: list[Path], size: int | None) -> None:
    """What no reader can do without: every member read, every picture decoded; and made square of a size, if given."""
    for path in shards:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                data = file.read() if file else b""
                if not member.name.endswith("json"):
                    image = Image.open(io.BytesIO(data)).convert("RGB")
                    if size:
                        make_square(image, size)


def plain(folders: dict[str, Path], processes: int, size: int | None = None) -> None:
    shards = sorted(path for folder in folders.values() for path in folder.glob("*.tar"))
    if processes == 0:
        return read_plainly(shards, size)
    context = multiprocessing.get_context("fork")
    readers = [context.Process(target=read_plainly, args=(shards[n::processes], size)) for n in range(processes)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return None


def loader(folders: dict[str, Path], arguments: argparse.Namespace) -> StreamLoader:
    sources = {name: ShardDataset(folder) for name, folder in folders.items()}
    tokenizer = TextTokenizer.train([" ".join(language()[0]) + " USER: ASSISTANT: Can you draw"] * 2, 4000)
    reader = LevelReader(PictureReader(arguments.size), arguments.resizing)
    maker = ExampleMaker(ChatTemplate(tokenizer, 576, 680), reader, reader, 4096)
    mixture = Mixture(sources, maker)
    groups = {SEEN: "text", DRAWN: "drawn"}
    spec = MixtureSpec(mixture.sizes, dict.fromkeys(sources, 1.0), "passes", arguments.batch_size, groups=groups)
    shards = {name: source.shard_counts for name, source in sources.items()}
    sampler = MixtureBatchSampler(spec, steps=spec.batches(1), shards=shards)
    return stream_loader(mixture, sampler, Collator(tokenizer.pad_id), workers=arguments.processes)


def stream(loader: StreamLoader, count: list[int], memory: list[float] | None = None) -> None:
    """Read an epoch; note the samples, and, if asked, now and then the largest memory of a worker's own in MB."""
    total = len(loader.batch_sampler.sampler)  # type: ignore[union-attr]
    for number, batch in enumerate(loader):
        count[0] += len(batch["input_ids"])
        if memory is not None and number % max(1, total // 10) == 0:
            memory.append(max(own_memory()))
    loader._iterator = None  # the workers end, and their seconds are counted


def own_memory() -> Iterator[float]:
    """Memory of each worker (of this process where there is none) that it shares with no other, in MB."""
    for process in psutil.Process().children() or [psutil.Process()]:
        yield process.memory_full_info().uss / 2**20


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of processors, this process and its children together."""
    before, began = processor_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - began, processor_seconds() - before


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(folders: dict[str, Path], arguments: argparse.Namespace) -> None:
    """Read in turn, so that what else the machine does falls on all; rates and ratios are medians of the rounds."""
    samples = 2 * arguments.records
    plain(folders, arguments.processes)  # from the disk to memory
    rates: dict[str, list[list[float]]] = {}
    for _ in range(arguments.repeats):
        count = [0]
        ours = loader(folders, arguments)
        for name, work in (
            ("plain", lambda: plain(folders, arguments.processes)),
            ("fitted", lambda: plain(folders, arguments.processes, arguments.size)),
            ("stream", lambda ours=ours, count=count: stream(ours, count)),
        ):
            seconds = measured(work)
            read = count[0] if name == "stream" else samples
            rates.setdefault(name, []).append([read / value for value in seconds])
    for name, rounds in rates.items():
        by_clock, by_processor = (median(values) for values in zip(*rounds, strict=True))
        print(f"{name:>6}: {by_clock:.0f} samples/s, {by_processor:.0f} a second of processor time")
    for name in ("plain", "fitted"):
        told = []
        for kind, place in (("by the clock", 0), ("by processor time", 1)):
            ratios = [one[place] / two[place] for one, two in zip(rates["stream"], rates[name], strict=True)]
            told.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) {kind}")
        print(f"stream to {name}: {', '.join(told)}")
    memory: list[float] = []
    stream(loader(folders, arguments), [0], memory)
    print(f"memory of a worker over a run: {', '.join(f'{value:.0f}' for value in memory)} MB")


if __name__ == "__main__":
    main()
