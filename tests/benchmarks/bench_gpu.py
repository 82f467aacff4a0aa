"""Drawing, encoding, decoding and training of a VAR of the released size: ours, faster forms of ours, the authors'.

    python -m tests.benchmarks.bench_gpu --reference VAR [--device cuda] [--works sample:16:1,train:8:2] [--pairs 5]

VAR is a checkout of the authors' repository; without it ours alone is measured. A work is NAME:DEPTH:BATCH, NAME one of
sample, encode, decode, train. The authors' random weights are handed to ours; sides take turns, medians of the pairs
are printed as seconds and as ratios (authors' / ours, above 1: ours is faster), with the device's peak memory where it
has a counter, and whether codes are equal. `fast` is `speed_up`; `compiled` adds torch.compile of the blocks and of the
picture decoder. Run once with the device's own name in mind: the ratio is what travels, not the seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.inference.fast import FORMS, fastest, speed_up_blocks
from vargpt_lightning.models.core.losses import image_loss
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.modules.optim.optimizers import build_optimizer
from vargpt_lightning.recipe.stage import OptimizerConfig

WORKS = "sample:16:1,sample:16:8,encode:16:1,decode:16:1,train:8:2,train:16:2"
GUIDED = SamplingSettings(top_k=900, top_p=0.95, cfg=1.5)
Job = Callable[[], Tensor]


@dataclass
class Work:
    """One line of the table, and what it computes with."""

    name: str
    depth: int
    batch: int
    device: torch.device
    labels: Tensor = field(init=False)
    pictures: Tensor = field(init=False)
    codes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.labels = (torch.arange(self.batch) * 7 % 1000).to(self.device)
        self.pictures = torch.randn(self.batch, 3, 256, 256, generator=generator).clamp(-1, 1).to(self.device)
        self.codes = torch.randint(4096, (self.batch, 680), generator=generator).to(self.device)

    def generator(self) -> torch.Generator:
        """The stream of a drawing, on the device."""
        return torch.Generator(self.device).manual_seed(5)


class Ours:
    """Our tokenizer and decoder, and the work done with them."""

    def __init__(self, work: Work, states: list[dict[str, Tensor]] | None) -> None:
        self.work = work
        self.tokenizer = ImageTokenizer()
        sizes = self.tokenizer.schedule.sizes
        self.decoder = VisualDecoder(scales=sizes, code_size=32, vocabulary=4096, depth=work.depth)
        for module, state in zip((self.tokenizer, self.decoder), states or [], strict=False):
            given = layouts.from_official({key: value.clone() for key, value in state.items()}).state
            layouts.load(module, {key.split(".", 1)[1]: value for key, value in given.items()})
        self.tokenizer.eval().requires_grad_(False).to(work.device)
        self.decoder.train(work.name == "train").to(work.device)
        self.optimizer = build_optimizer(self.decoder, OptimizerConfig(name="adamw", lr=1e-5))

    def copy(self) -> Ours:
        """The same with weights of its own."""
        return copy.deepcopy(self)

    def compiled(self) -> Ours:
        """The same with its blocks and its picture decoder compiled; shapes are few and known."""
        torch._dynamo.config.recompile_limit = 64
        for block in self.decoder.blocks:
            block.compile(mode="max-autotune-no-cudagraphs", dynamic=False)
        self.tokenizer.decoder.compile(mode="max-autotune", dynamic=False)
        return self

    def sample(self) -> Tensor:
        with torch.no_grad():
            drawing = self.decoder.generate(
                self.tokenizer, self.work.labels, sampling=GUIDED, generator=self.work.generator()
            )
            return self.tokenizer.decode(drawing.f_hat_BCHW)

    def encode(self) -> Tensor:
        return self.tokenizer.encode(self.work.pictures)

    def decode(self) -> Tensor:
        with torch.no_grad():
            return self.tokenizer.decode_indices(self.work.codes)

    def train(self) -> Tensor:
        inputs = self.tokenizer.next_scale_inputs(self.work.codes)
        loss = image_loss(self.decoder(self.work.labels, inputs), self.work.codes, self.tokenizer.schedule).loss
        return stepped(loss, self.optimizer)


class Theirs:
    """The authors' models, with random weights that look like trained ones in their spread."""

    def __init__(self, work: Work, folder: str) -> None:
        self.work = work
        if folder not in sys.path:
            sys.path.insert(0, folder)
        models: Any = importlib.import_module("models")
        torch.manual_seed(work.depth)
        with contextlib.redirect_stdout(io.StringIO()):
            self.vae, self.var = models.build_vae_var("cpu", depth=work.depth)
        with torch.no_grad():
            for module in self.vae.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.normal_(0, (1 / 3 / module.weight[0].numel()) ** 0.5)
                    module.bias.zero_()
                elif isinstance(module, nn.GroupNorm):  # their builder leaves memory as it was
                    nn.init.ones_(module.weight)
                    nn.init.zeros_(module.bias)
            self.vae.quantize.embedding.weight.normal_(0, 0.5)
            self.var.head.weight.normal_(0, 0.05)
        self.states = [self.vae.state_dict(), self.var.state_dict()]
        self.vae.eval().requires_grad_(False).to(work.device)
        self.var.train(work.name == "train").to(work.device)
        self.optimizer = torch.optim.AdamW(self.var.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)

    def _levels(self) -> list[Tensor]:
        return list(self.work.codes.split([side**2 for side in self.var.patch_nums], dim=1))

    def sample(self) -> Tensor:
        infer = self.var.autoregressive_infer_cfg
        picture: Tensor = infer(self.work.batch, self.work.labels, g_seed=5, cfg=1.5, top_k=900, top_p=0.95)
        return picture * 2 - 1

    @torch.no_grad()
    def encode(self) -> Tensor:
        return torch.cat(self.vae.img_to_idxBl(self.work.pictures), 1)

    @torch.no_grad()
    def decode(self) -> Tensor:
        picture: Tensor = self.vae.idxBl_to_img(self._levels(), same_shape=True, last_one=True)
        return picture

    def train(self) -> Tensor:
        with torch.no_grad():
            inputs = self.vae.quantize.idxBl_to_var_input(self._levels())
        logits = self.var(self.work.labels, inputs)
        return stepped(F.cross_entropy(logits.view(-1, 4096), self.work.codes.view(-1)), self.optimizer)


def stepped(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """A whole training step; returns the loss."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def timed(job: Job, device: torch.device) -> tuple[float, float, Tensor]:
    """Seconds, peak megabytes (0 where the device does not count) and the result of a job."""
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    result = job()
    if gpu:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    return seconds, torch.cuda.max_memory_allocated(device) / 2**20 if gpu else 0.0, result


def measure(work: Work, reference: str | None, pairs: int, compiled: bool) -> None:
    """Print the line of a work for each side."""
    theirs = Theirs(work, reference) if reference else None
    ours = Ours(work, theirs.states if theirs else None)
    sides: dict[str, Any] = ({"authors": theirs} if theirs else {}) | {"ours": ours}
    if work.name == "sample":
        quick = ours.copy()
        form = fastest(work.device)
        if form in FORMS:
            speed_up_blocks(quick.decoder.blocks, form)
            sides[f"fast ({form})"] = quick
        if compiled:
            sides["compiled"] = quick.copy().compiled()
    jobs: dict[str, Job] = {name: getattr(side, work.name) for name, side in sides.items()}
    for job in jobs.values():
        job()
    found: dict[str, list[tuple[float, float, Tensor]]] = {name: [] for name in jobs}
    for _ in range(pairs):
        for name, job in jobs.items():
            found[name].append(timed(job, work.device))
    base = next(iter(found))
    for name, runs in found.items():
        ratio = statistics.median(one[0] / own[0] for one, own in zip(found[base], runs, strict=True))
        apart = float((runs[-1][2].double() - found[base][-1][2].double()).abs().max())
        seconds, peak = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
        place = f"{work.name}:{work.depth}:{work.batch}"
        print(f"{place:14} {name:16} {seconds:9.4f} s  {ratio:5.2f} x  {peak:8.0f} MB  apart {apart:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="a checkout of the authors' VAR")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--works", default=WORKS)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    side = 2048 if device.type == "cpu" else 8192
    one = torch.randn(side, side, device=device)
    seconds = min(timed(lambda: one @ one, device)[0] for _ in range(4))
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32 products ", end="")
    print(f"{2 * side**3 / seconds / 1e9:,.0f} GFLOP/s")
    for each in arguments.works.split(","):
        name, depth, batch = each.split(":")
        measure(Work(name, int(depth), int(batch), device), arguments.reference, arguments.pairs, arguments.compile)


if __name__ == "__main__":
    main()
