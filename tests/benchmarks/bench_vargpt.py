"""A training step and a drawing of a small VARGPT on the CPU, beside the authors' code, in turn in one process.

    python -m tests.benchmarks.bench_vargpt VARGPT [--pairs 5] [--threads 1]

VARGPT is a checkout of the authors' repository, which runs with transformers 4.46: start this with a Python that has
that version beside torch. Language model of 8 blocks, 512 wide, with 32,064 words; decoder of 8 blocks; 256 px. Both
have the same random weights and no picture to see: a step of AdamW on a row of 32 words and a picture, and a drawing
after them. Printed are medians of ratios (theirs / ours) of processor seconds and, for the step, of what it keeps for
its backward pass and takes at most, beside weights, gradients and optimizer. That memory tells something only with
MALLOC_MMAP_THRESHOLD_=1000000 MALLOC_ARENA_MAX=1 before the command, and times only without. Linux alone (/proc).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.models.generation.answers import GenerationSettings, Prompt
from vargpt_lightning.models.generation.generate import generate
from vargpt_lightning.modules.optim.optimizers import build_optimizer
from vargpt_lightning.recipe.stage import OptimizerConfig

START, END, PAD, DRAWN = 32002, 32003, 32001, 32004
HIDDEN, LAYERS, HEADS, MLP, VOCABULARY, DEPTH = 512, 8, 8, 1376, 32064, 8


class Case:
    """A prompt, and a row in which a picture follows it."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        words_1T = torch.randint(10, 30000, (1, 31), generator=generator)
        self.prompt_1T = torch.cat((torch.tensor([[1]]), words_1T), 1)
        drawn_1T = torch.tensor([[START, *[DRAWN] * 680, END]])
        self.ids_1T = torch.cat((self.prompt_1T, drawn_1T), 1)
        self.pictures_13HW = torch.randn(1, 3, 256, 256, generator=generator).clamp(-1, 1)


class Theirs:
    """The authors' model with random weights."""

    def __init__(self, folder: str, case: Case) -> None:
        sys.path.insert(0, folder)
        released: Any = importlib.import_module("vargpt_llava.modeling_vargpt_llava")
        settings: Any = importlib.import_module("vargpt_llava.configuration_vargpt_llava")
        transformers: Any = importlib.import_module("transformers")
        self.case, self.new_cache = case, transformers.DynamicCache
        build = released.build_vae_vargpt_v1
        released.build_vae_vargpt_v1 = lambda *args, **more: build("cpu", **{**more, "depth": DEPTH})
        tower = transformers.CLIPVisionConfig(
            hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, patch_size=14
        )
        language = transformers.LlamaConfig(
            hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=MLP,
            vocab_size=VOCABULARY, max_position_embeddings=2048, rms_norm_eps=1e-5,
        )  # fmt: skip
        tokens = {"image_gen_start_token_id": START, "image_gen_end_token_id": END, "image_gen_pad_token_id": DRAWN}
        sizes = {"hidden_size": HIDDEN, "pad_token_id": PAD, "vocab_size": VOCABULARY, "special_tokens": tokens}
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):
            config = settings.VARGPTLlavaConfig(tower, language, **sizes)
            self.model = released.VARGPTLlavaForConditionalGeneration(config)
        self._fill()
        self.model.vae_local.eval().requires_grad_(False)
        trained = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    @torch.no_grad()
    def _fill(self) -> None:
        """Give parts that their builder leaves as memory was, or constant, random weights."""
        for module in self.model.vae_local.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.normal_(0, (1 / 3 / module.weight[0].numel()) ** 0.5)
                module.bias.zero_()  # type: ignore[union-attr]
            elif isinstance(module, torch.nn.GroupNorm):
                module.weight.fill_(1)
                module.bias.zero_()
        self.model.vae_local.quantize.embedding.weight.normal_(0, 0.5)
        for name, value in self.model.vargpt_gen.named_parameters():
            if not name.startswith("vae"):
                value.normal_(0, 0.02) if value.dim() > 1 else value.zero_()
        self.model.vargpt_gen.head.weight.normal_(0, 0.05)
        for block in self.model.vargpt_gen.blocks:
            if hasattr(block.attn, "scale_mul_1H11"):
                block.attn.scale_mul_1H11.fill_(1.4)

    def loss(self) -> Tensor:
        ids = self.case.ids_1T
        pixels, mask = self.case.pictures_13HW, torch.ones_like(ids)
        output = self.model(input_ids=ids, attention_mask=mask, labels=ids, pixel_gen_values=pixels, use_cache=False)
        loss: Tensor = output.loss
        return loss

    @torch.no_grad()
    def draw(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.model._IMAGE_GEN_PATH = f"{folder}/drawing.png"
            torch.manual_seed(5)
            prompt_1T, start_11 = self.case.prompt_1T, torch.tensor([[START]])
            more = {"past_key_values": self.new_cache(), "use_cache": True}
            self.model(input_ids=prompt_1T, attention_mask=torch.ones_like(prompt_1T), **more)
            self.model(input_ids=start_11, attention_mask=torch.ones(1, 33, dtype=torch.long), **more)
            self.model(input_ids=start_11, inference_image_gen=True, **more)


class Ours:
    """Our model with the authors' weights, but for the tower."""

    def __init__(self, state: dict[str, Tensor], case: Case) -> None:
        self.case = case
        config = VARGPTConfig(
            language=LanguageConfig(
                width=HIDDEN, layers=LAYERS, heads=HEADS, mlp=MLP, vocabulary=VOCABULARY, max_positions=2048
            ),
            vision=VisionConfig(kind="none"),
            tokenizer=TokenizerConfig(),
            decoder=DecoderConfig(depth=DEPTH, classes=32003),
            preset="official",
            unused_layer_norm=True,
        )
        self.model = VARGPT(config)
        given = layouts.from_official({name: value.clone() for name, value in state.items()}).state
        layouts.load(self.model, {name: value for name, value in given.items() if not name.startswith("vision_")})
        self.model.image_tokenizer.eval().requires_grad_(False)
        self.optimizer = build_optimizer(self.model, OptimizerConfig(name="adamw", lr=1e-5))

    def loss(self) -> Tensor:
        ids = self.case.ids_1T
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        loss = self.model({**batch, "drawn_pixels": self.case.pictures_13HW}).loss
        assert loss is not None
        return loss

    def draw(self) -> None:
        asked_T = torch.cat((self.case.prompt_1T[0], torch.tensor([START])))
        visual = self.model.sampling_settings(top_k=900, cfg=1.5)
        settings = GenerationSettings(max_new_tokens=2, max_images=1, visual=visual)
        generate(self.model, [Prompt(asked_T, seed=5)], lambda tokens: "", settings)


def memory(name: str) -> float:
    """Megabytes by a name of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def step(side: Any) -> dict[str, float]:
    """Take a training step; return seconds, the loss and megabytes."""
    side.model.train()
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    loss = side.loss()
    kept = memory("VmRSS") - before
    loss.backward()
    most = memory("VmHWM") - before
    side.optimizer.step()
    side.optimizer.zero_grad(set_to_none=False)
    return {"seconds": time.process_time() - began, "kept MB": kept, "peak MB": most, "loss": loss.item()}


def drawing(side: Any) -> dict[str, float]:
    """Draw; return seconds."""
    side.model.eval()
    began = time.process_time()
    side.draw()
    return {"seconds": time.process_time() - began}


def rounds(sides: list[Any], work: Any, pairs: int) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield what both sides took, after a round that is not counted."""
    for number in range(pairs + 1):
        one, other = (work(side) for side in sides)
        if number:
            yield one, other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", help="a checkout of the authors' VARGPT")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    theirs = Theirs(arguments.reference, Case())
    sides = [theirs, Ours(theirs.model.state_dict(), Case())]
    for name, work in (("drawing", drawing), ("training step", step)):
        found = list(rounds(sides, work, arguments.pairs))
        for what in found[0][0]:
            one, other = (statistics.median(pair[place][what] for pair in found) for place in (0, 1))
            # freed memory that is kept for later serves a step that takes none anew
            ratio = statistics.median(pair[0][what] / (pair[1][what] or float("nan")) for pair in found)
            print(f"{name:>13}  {what:>8}  theirs {one:9.3f}  ours {other:9.3f}  ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
