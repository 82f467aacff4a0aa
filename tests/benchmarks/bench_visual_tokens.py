"""Samples a second of the stage `generation`, with and without visual tokens made before, as a ratio within one run.

python -m tests.benchmarks.bench_visual_tokens [--case openmoji large] [--steps 6] [--rounds 5]

"openmoji" is that experiment's model, 128 px and 55 tokens a picture. "large" draws pictures of 256 px with a tokenizer
of 64 channels and VAR's scales, 680 tokens, in the same language model and decoder. Pictures are OpenMoji's. Each step
is a whole one: loading, forward, backward, AdamW, in one thread. Rounds with and without take turns; the ratio is that
of the medians, of the clock's time and of the processor's, which other programs disturb less. Untrained weights: the
time is the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.models.core.config import TokenizerConfig, VARGPTConfig
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data.stage_data import StageData

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "openmoji.yaml"


def case(name: str) -> tuple[VARGPTConfig, Any, Stage]:
    """The sizes, data and stage of a case."""
    changes = ["--data.init_args.cache_features", "true"]
    if name == "large":
        changes += ["--data.init_args.picture_size", "256", "--model.language.max_positions", "1024"]
        changes += ["--data.init_args.categories", "[Food & Drink]"]
    experiment = load_experiment(["-c", str(EXPERIMENT), *changes])
    config = experiment.model
    if name == "large":
        config = replace(config, tokenizer=TokenizerConfig(channels=64))
    stage = replace(next(each for each in experiment.stages if each.name == "generation"), steps=10_000)
    return config, experiment.data, replace(stage, batch_size=4) if name == "large" else stage


def loader(data: StageData, model: VARGPT, stage: Stage, use: str) -> Iterator[Any]:
    data.corpora.visual_tokens = use  # type: ignore[assignment]
    data._tokens.prepare(model.image_tokenizer, stage, {"train": data.sources("train")})
    return iter(data.train_loader(stage, 10_000, 0))


def measure(name: str, steps: int, rounds: int) -> None:
    config, corpora, stage = case(name)
    torch.manual_seed(0)
    model = VARGPT(config)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer: TextTokenizer = corpora.text_tokenizer()
        data = StageData(config, corpora, tokenizer, Path(folder) / "cache")
        began = time.perf_counter()
        loaders = {"made before": loader(data, model, stage, "auto")}
        made = time.perf_counter() - began
        loaders["encoded in training"] = loader(data, model, stage, "off")
        module = VARGPTModule(model, stage, 10_000)
        trained = [*model.visual_decoder.parameters()]
        for part in ("generation_projector_in", "generation_projector_out"):
            trained += getattr(model, part).parameters()
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(trained, lr=1e-5)
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in loaders}
        for number in range(rounds + 1):
            for way, batches in loaders.items():
                began, used = time.perf_counter(), time.process_time()
                for _ in range(steps):
                    output = module(data.scaled(next(batches)))
                    loss = output.image_loss
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                if number:  # the first round warms up
                    times[way].append((time.perf_counter() - began, time.process_time() - used))
    print(f"{name}: {config.tokenizer.schedule.num_tokens} tokens, channels {config.tokenizer.channels}, ", end="")
    print(f"batches of {stage.batch_size}; making the tokens took {made:.1f} s")
    samples = steps * stage.batch_size
    for place, clock in enumerate(("clock", "processor")):
        rates = {way: [samples / each[place] for each in found] for way, found in times.items()}
        middle = {way: statistics.median(found) for way, found in rates.items()}
        for way, found in rates.items():
            print(f"  {clock:9} {way:20} {middle[way]:8.2f} samples/s ({min(found):.2f} to {max(found):.2f})")
        print(f"  {clock:9} ratio {middle['made before'] / middle['encoded in training']:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["openmoji", "large"], choices=["openmoji", "large"])
    parser.add_argument("--steps", type=int, default=6, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.case:
        measure(name, arguments.steps, arguments.rounds)


if __name__ == "__main__":
    main()
