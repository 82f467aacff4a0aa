"""Memory and time of drawing pictures: the prompt, one pass a scale with caches, the decoding to pixels.

Legend: B pictures drawn together, T tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.masks import attention_mask, find_pictures
from vargpt_lightning.models.decoder.sampling import next_scale_loop
from vargpt_lightning.models.generation.drawing import PictureStep
from vargpt_lightning.models.language.kv_cache import LanguageCache
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


def trace_drawing(model: VARGPT, batch: int, prompt: int = PROMPT, target: Target = "cuda") -> tuple[Trace, int]:
    """Trace the drawing of a batch of pictures after prompts of `prompt` tokens; also return the bytes of the caches.

    Args:
        model: on the meta device, in evaluation mode.
    """
    sampling = model.sampling_settings()
    rows, lengths = list(range(batch)), [prompt] * batch
    with torch.no_grad(), tracing(target, model, {}) as tracer:
        tracer.begin("forward")
        tracer.mark("phase", "prompt")
        cache = LanguageCache(model.language_model, batch, prompt + model.schedule.num_tokens + 2)
        ids_BT = torch.full((batch, prompt), model.tokens.eos)
        layout = find_pictures(ids_BT, model.tokens, model.schedule.num_tokens)
        valid_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        mask = attention_mask(layout, valid_BT, model.schedule, model.settings.visual_attention)
        embeds_BTC = model.embed({"input_ids": ids_BT}, layout, None)
        cache.run(embeds_BTC, torch.arange(prompt).expand_as(ids_BT), mask)
        del embeds_BTC, mask
        tracer.mark("phase", "scales")
        step = PictureStep(model, cache, rows, lengths, sampling)
        step.lengths_R = torch.tensor(lengths)  # what the meta device was given has no values
        drawing = next_scale_loop(step, model.image_tokenizer, sampling)
        stores = [cache, *([step.alone] if step.alone else [])]
        caches = sum(2 * each.keys_LBHSD.numel() * each.keys_LBHSD.element_size() for each in stores)
        caches += sum(2 * each.keys_BHLD.numel() * each.keys_BHLD.element_size() for each in step.decoder_cache.layers)
        tracer.mark("phase", "decoding")
        model.image_tokenizer.decode(drawing.f_hat_BCHW)
        tracer.note()
    return tracer.trace(), caches


def plan_drawing(
    model: VARGPT, batches: Sequence[int], gpu: Gpu, efficiency: float, prompt: int = PROMPT
) -> Iterator[GenerationPlan]:
    """Yield the plan of each batch on one GPU, the model on it as it is; two small ones are traced for all."""
    low, high = (trace_drawing(model.eval(), small, prompt) for small in SMALL_BATCHES)
    parameters = sum(each.numel() * each.element_size() for each in [*model.parameters(), *model.buffers()])
    for batch in batches:
        trace = extrapolated(low[0], high[0], *SMALL_BATCHES, batch)
        caches = low[1] * batch // SMALL_BATCHES[0]
        peak = parameters + trace.peak + CONTEXT + KERNEL_CACHE + int(FRAGMENTS * max(0, trace.peak - caches))
        at_least = lower_bound(trace, gpu.flops, gpu.bandwidth)
        yield GenerationPlan(
            batch, parameters, caches, peak, trace.flops, at_least, at_least / efficiency, peak <= gpu.memory
        )
