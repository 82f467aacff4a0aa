"""Memory and time of drawing pictures: the prompt, one pass a scale with caches, the decoding to pixels.

Legend: B pictures drawn together, T tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import attention_mask
from vargpt_lightning.models.decoder.sampling import Drawing, SamplingSettings, next_scale_loop
from vargpt_lightning.models.generation.drawing import PictureStep
from vargpt_lightning.models.generation.steered import Context, draw_steered
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts import Given
from vargpt_lightning.planning.kernels import Target
from vargpt_lightning.planning.stage_plan import lower_bound
from vargpt_lightning.planning.trace import Trace, extrapolated
from vargpt_lightning.planning.tracing import tracing
from vargpt_lightning.planning.truncated_model import SMALL_BATCHES
from vargpt_lightning.utils.gpus import CONTEXT, FRAGMENTS, KERNEL_CACHE, Gpu

PROMPT = 64
"""Text tokens of a prompt."""


@dataclass
class GenerationPlan:
    """One GPU that draws `batch` pictures together; bytes, FLOPs, seconds.

    Attributes:
        at_least: seconds if every operation ran at the GPU's peak or bandwidth.
        seconds: the same at the stated efficiency.
    """

    batch: int
    parameters: int
    caches: int
    peak: int
    flops: int
    at_least: float
    seconds: float
    fits: bool


def trace_drawing(
    model: VARGPT,
    batch: int,
    prompt: int = PROMPT,
    target: Target = "cuda",
    parts: Given | None = None,
) -> tuple[Trace, int]:
    """Trace the drawing of a batch of pictures after prompts of `prompt` tokens; also return the bytes of the caches.

    Args:
        model: on the meta device, in evaluation mode.
        parts: of the sampler. What a scorer computes is not counted.

    A model of several sizes draws the largest.
    """
    model = model.at(model.config.tokenizer.largest)
    sampling = model.sampling_settings(parts=parts or {})
    rows, lengths = list(range(batch)), [prompt] * batch
    with torch.no_grad(), tracing(target, model, {}) as tracer:
        tracer.begin("forward")
        tracer.mark("phase", "prompt")
        cache = _read(model, batch, prompt)
        tracer.mark("phase", "scales")
        if sampling.parts:
            drawing, steps = drawn_with_parts(model, cache, sampling, batch, prompt)
        else:
            step = PictureStep(model, cache, rows, lengths, sampling)
            step.lengths_R = torch.tensor(lengths)  # what the meta device was given has no values
            drawing, steps = next_scale_loop(step, model.image_tokenizer, sampling), [step]
        caches = _bytes(cache.keys_LBHSD)
        for step in steps:
            stores = [*([step.cache] if step.cache is not cache else []), *([step.alone] if step.alone else [])]
            caches += sum(_bytes(each.keys_LBHSD) for each in stores)
            caches += sum(_bytes(each.keys_BHLD) for each in step.decoder_cache.layers)
        tracer.mark("phase", "decoding")
        model.image_tokenizer.decode(drawing.f_hat_BCHW)
        tracer.note()
    return tracer.trace(), caches


def plan_drawing(
    model: VARGPT,
    batches: Sequence[int],
    gpu: Gpu,
    efficiency: float,
    prompt: int = PROMPT,
    parts: Given | None = None,
) -> Iterator[GenerationPlan]:
    """Yield the plan of each batch on one GPU, the model on it as it is; two small ones are traced for all."""
    low, high = (trace_drawing(model.eval(), small, prompt, parts=parts) for small in SMALL_BATCHES)
    parameters = sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()])
    for batch in batches:
        trace = extrapolated(low[0], high[0], *SMALL_BATCHES, batch)
        caches = low[1] * batch // SMALL_BATCHES[0]
        peak = parameters + trace.peak + CONTEXT + KERNEL_CACHE + int(FRAGMENTS * max(0, trace.peak - caches))
        at_least = lower_bound(trace, gpu.flops, gpu.bandwidth)
        yield GenerationPlan(
            batch, parameters, caches, peak, trace.flops, at_least, at_least / efficiency, peak <= gpu.memory
        )


def drawn_with_parts(
    model: VARGPT, cache: LanguageCache, sampling: SamplingSettings, batch: int, prompt: int
) -> tuple[Drawing, list[PictureStep]]:
    """Draw on the meta device with parts of a sampler; return the drawing, and the steps of all models that drew.

    Another model is taken to be of this one's size.
    """
    steps: list[PictureStep] = []

    def with_lengths(step: PictureStep) -> None:
        step.lengths_R = torch.full((len(step.rows),), prompt)  # what the meta device was given has no values
        steps.append(step)

    def others(where: str, owners: Sequence[int]) -> PictureStep:
        step = PictureStep(
            model, _read(model, len(owners), prompt), range(len(owners)), [prompt] * len(owners), sampling
        )
        with_lengths(step)
        return step

    context = Context(others=others, sources=_Same(prompt), images=lambda pictures: [None] * len(pictures))
    streams = [torch.Generator() for _ in range(batch)]
    lengths = [prompt] * batch
    found = draw_steered(model, cache, range(batch), lengths, sampling, streams, context, on_step=with_lengths)
    return found.drawing, steps


class _Same:
    """What parts ask for where nothing is loaded."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt

    def prompt_ids(self, text: str) -> list[int]:
        return [0] * self.prompt

    def model(self, where: str) -> None:
        raise AssertionError(where)  # `others` opens them

    def scorer(self, name: str) -> Any:
        return lambda pictures, requests: [0.0] * len(pictures)


def _read(model: VARGPT, batch: int, prompt: int) -> LanguageCache:
    """A cache that has read prompts of so many tokens."""
    cache = model.language_cache(batch, prompt + model.schedule.num_tokens + 2)
    ids_BT = torch.full((batch, prompt), model.tokens.eos)
    layout = model.layout(ids_BT)
    valid_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    mask = attention_mask(layout, valid_BT, model.schedule, model.settings.visual_attention)
    embeds_BTC = model.embed({"input_ids": ids_BT}, layout, None)
    cache.run(embeds_BTC, torch.arange(prompt).expand_as(ids_BT), mask)
    return cache


def _bytes(keys: torch.Tensor) -> int:
    """Of keys and of values as many."""
    return 2 * keys.numel() * keys.element_size()
