"""Whether work that grows stays flat: time and memory a picture of an evaluation, memory of a step by sequence length.

    MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_ARENA_MAX=1 python -m tests.benchmarks.bench_growth [--pictures 50000]
        [--lengths 256 512 1024 2048 4096]

Pictures: an untrained model of 8 px, made to draw in every answer, draws them as `vargpt evaluate images run` does.
They are measured as that does (Inception Score, statistics of 2048 channels, CLIP score), with a small random
projection in place of each network, so that what is not a network's shows. A row is a tenth of them: milliseconds a
picture, and the process's own memory (RssAnon). Steps: a language model of 6 blocks, 256 wide, with 32,000 words learns
one text of each length; printed is what a step takes beside weights and gradients, in MB, and in KB a token. The two
variables make the C library give freed memory back at once. Linux alone (/proc).
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.untrained import scripted, write_run
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.fsdp2 import arrange_blocks
from vargpt_lightning.evaluation.images import distances
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.measures import measure
from vargpt_lightning.evaluation.images.picture_runs import draw_pictures
from vargpt_lightning.evaluation.images.settings import MeasureSettings
from vargpt_lightning.evaluation.systems.open import open_system
from vargpt_lightning.models.core import head_loss
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.recipe.sharding import ShardingConfig

ROWS = 10
WORDS = 32_000


def memory(name: str) -> float:
    """Megabytes by a name of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def processor() -> float:
    """Seconds of the processor that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass
class Watch:
    """A progress callback that prints a row for each tenth of a piece of work, and what came after the last."""

    total: int
    title: str = ""
    marks: list[tuple[int, float, float]] = field(default_factory=list)

    def __call__(self, title: str, done: int, total: int) -> None:
        if title != self.title:
            self.title, self.marks = title, []
            print(f"\n{title}\n{'done':>8}  ms a picture  processor ms  MB", flush=True)
        scale = self.total / total
        now = (round(done * scale), time.perf_counter(), processor())
        if not self.marks:
            self.marks.append(now)
        elif now[0] - self.marks[-1][0] >= self.total // ROWS or done == total > self.marks[-1][0] / scale:
            count, wall, used = (one - other for one, other in zip(now, self.marks[-1], strict=True))
            times = f"{1000 * wall / count:12.2f}  {1000 * used / count:12.2f}"
            print(f"{now[0]:8d}  {times}  {memory('RssAnon'):.0f}", flush=True)
            self.marks.append(now)


class Projection:
    """In place of a network: the mean colours of a picture's quarters, projected at random."""

    name = "projection"
    settings: ClassVar[dict[str, Any]] = {"model": "projection"}
    about: ClassVar[dict[str, Any]] = {"extractor": "projection"}

    def __init__(self, layers: Any = ("clip",), *args: Any, **settings: Any) -> None:
        self.layers = tuple(layers)
        generator = torch.Generator().manual_seed(0)
        self.matrices = {each: torch.randn(48, size, generator=generator) for each, size in self.sizes().items()}

    def sizes(self) -> dict[str, int]:
        known = {"2048": 2048, "logits_unbiased": 1008, "clip": 768}
        return {layer: known[layer] for layer in self.layers}

    def prepare(self, picture: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def __call__(self, batch_B3HW: Tensor) -> dict[str, Tensor]:
        small = torch.nn.functional.adaptive_avg_pool2d(batch_B3HW.float() / 255, 4).flatten(1)
        return {layer: small @ matrix for layer, matrix in self.matrices.items()}

    def pictures(self, pictures: Any) -> Tensor:
        rows = self(torch.stack([self.prepare(picture) for picture in pictures]))["clip"]
        return torch.nn.functional.normalize(rows, dim=1)

    def texts(self, texts: Any) -> tuple[Tensor, list[bool]]:
        return torch.nn.functional.normalize(torch.ones(len(texts), 768), dim=1), [False] * len(texts)


def evaluation(count: int, batch: int) -> None:
    """Draw and measure so many pictures."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as changes:
        run = write_run(Path(folder) / "run")
        scripted(changes)("*")
        prompts = [Prompt(f"{number:06d}", "Please draw a shamrock.", "a shamrock") for number in range(count)]
        watch, out = Watch(count), Path(folder) / "out"
        found = draw_pictures(open_system(str(run.path)), prompts, out, batch_size=batch, progress=watch)
        assert found.pictures == count
        settings = MeasureSettings(metrics=("isc", "clip"), batch_size=batch)
        more: dict[str, Any] = {"save_statistics": Path(folder) / "sums.npz", "clip_model": Projection()}
        with patch.object(distances, "FeatureExtractor", Projection):
            began = time.perf_counter()
            measure(out, out, settings, prompts=prompts, progress=watch, **more)
        print(f"\nall of measuring: {time.perf_counter() - began:.0f} s, {memory('RssAnon'):.0f} MB", flush=True)


def config() -> VARGPTConfig:
    return VARGPTConfig(
        language=LanguageConfig(width=256, layers=6, heads=4, vocabulary=WORDS, max_positions=65_536),
        vision=VisionConfig(kind="none"),
        tokenizer=TokenizerConfig(scales=(1, 2), channels=32, channel_multipliers=(1, 1), code_size=8, vocabulary=64),
        decoder=DecoderConfig(depth=1, width=64, heads=1, classes=1),
        tokens=TokenIds(pad=0, bos=1, eos=2, image=3, image_gen_start=4, image_gen_end=5, image_gen=6),
    )


def step_memory(length: int, checkpointing: str, logits: int) -> float:
    """Return what the second step on a text takes beside weights and gradients, in MB; in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return float(said)
    head_loss.LOGITS = logits
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = VARGPT(config()).train()
    model.image_tokenizer.requires_grad_(False)
    arrange_blocks(model, ShardingConfig(checkpointing))
    ids = torch.randint(10, WORDS, (1, length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": ids}
    for _ in range(2):
        model.zero_grad(set_to_none=False)
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        loss = model(batch).text_loss
        loss.backward()
        del loss
        taken = memory("VmHWM") - before
    os.write(writing, str(taken).encode())
    os._exit(0)


def steps(lengths: list[int]) -> None:
    """Print what a step takes at each length, in each way."""
    ways = {
        "usual": ("none", head_loss.LOGITS),
        "recomputed": ("full", head_loss.LOGITS),
        "all logits at once": ("none", 2**62),
    }
    print("\ntokens  " + "  ".join(f"{name + ', MB (KB a token)':>34}" for name in ways), flush=True)
    for length in lengths:
        found = [step_memory(length, *way) for way in ways.values()]
        cells = [f"{each:.0f} ({1024 * each / length:.0f})" for each in found]
        print(f"{length:6d}  " + "  ".join(f"{cell:>34}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096])
    arguments = parser.parse_args()
    steps(arguments.lengths)
    torch.set_num_threads(1)
    if arguments.pictures:
        evaluation(arguments.pictures, arguments.batch)


if __name__ == "__main__":
    main()
