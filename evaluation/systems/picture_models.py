"""How Janus and Emu3 draw: one picture a prompt, from a random stream that belongs to the prompt alone.

Both sample a picture's codes token by token. The choice is made here and not by `generate`, whose one stream for the
whole batch would let a drawing depend on its neighbours: to the guided, filtered logits each row adds Gumbel noise of
its own stream and takes the largest, which is the same as sampling from them (Maddison et al., arXiv 1411.0030).

Legend: B rows, T tokens of the padded prompts, L codes of a picture, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.utils.errors import UserError

Painter = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
"""Prompts and their seeds in, a picture for each out."""


@dataclass(frozen=True)
class DrawSettings:
    """How pictures are drawn; None takes what the model's authors use.

    Args:
        guidance: weight of the prompt against no prompt (Janus 5, Emu3 3); 1 is without guidance.
        temperature: of the codes (1); 0 takes the likeliest.
        top_k: codes that are kept (Janus all, which is 0; Emu3 2048).
        suffix: put behind each prompt (Emu3's words of quality, else nothing).
        negative_prompt: what Emu3's guidance leads away from.
        image_area: pixels of Emu3's pictures (720 x 720).
        ratio: width to height of Emu3's pictures (1:1).

    Raises:
        UserError: a number out of its range.
    """

    guidance: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    suffix: str | None = None
    negative_prompt: str | None = None
    image_area: int | None = None
    ratio: str | None = None

    def __post_init__(self) -> None:
        for key, least in {"guidance": 1, "temperature": 0, "top_k": 0, "image_area": 64}.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"drawing {key}: {value}; expected {least} or more")

    def filled(self, kind: str) -> DrawSettings:
        """These settings with the authors' where there is none."""
        own = {key: value for key, value in asdict(self).items() if value is not None}
        return replace(_AUTHORS[kind], **own)

    def facts(self, kind: str) -> dict[str, Any]:
        """What the drawings of a kind of model depend on; empty for one that does not draw."""
        known = asdict(self.filled(kind)) if kind in _AUTHORS else {}
        return {key: value for key, value in known.items() if value is not None}


_AUTHORS = {
    "janus": DrawSettings(guidance=5.0, temperature=1.0, top_k=0, suffix=""),
    "emu3": DrawSettings(
        guidance=3.0,
        temperature=1.0,
        top_k=2048,
        suffix=" masterpiece, film grained, best quality.",
        negative_prompt="lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, "
        "cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry.",
        image_area=720 * 720,
        ratio="1:1",
    ),
}


def painter(model: Any, processor: Any, settings: DrawSettings) -> Painter:
    """Returns how a model draws.

    Raises:
        UserError: its kind does not draw.
    """
    kind = model.config.model_type
    if kind not in _AUTHORS:
        raise UserError(f"a transformers model of the kind {kind} does not draw; expected {' or '.join(_AUTHORS)}")
    paint, filled = {"janus": _janus, "emu3": _emu3}[kind], settings.filled(kind)

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        with torch.inference_mode():
            return paint(model, processor, filled, [prompt + (filled.suffix or "") for prompt in prompts], seeds)

    return draw


class _SeededChoice:
    """Replaces logits by others whose largest is a sample: guided, filtered, with the noise of each row's own stream.

    Args:
        seeds: one a row.
        settings: temperature and top_k.
        guidance: mixes logits of 2 B rows, with and then without the prompt; None takes B rows as they are.
        allowed: the tokens that may be chosen at each step.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        settings: DrawSettings,
        guidance: float | None = None,
        allowed: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.streams = [_stream(seed) for seed in seeds]
        self.temperature, self.top_k = settings.temperature or 0.0, settings.top_k or 0
        self.guidance, self.allowed, self.step = guidance, allowed, 0

    def __call__(self, input_ids_BT: Tensor, logits: Tensor) -> Tensor:
        logits_BV = logits.float()
        if self.guidance is not None:
            with_BV, without_BV = logits_BV.chunk(2)
            logits_BV = without_BV + self.guidance * (with_BV - without_BV)
        if self.allowed is not None:
            barred_V = torch.ones(logits_BV.shape[-1], dtype=torch.bool, device=logits_BV.device)
            barred_V[self.allowed(self.step)] = False
            logits_BV = logits_BV.masked_fill(barred_V, -torch.inf)
        self.step += 1
        if self.temperature == 0:
            return logits_BV
        if 0 < self.top_k < logits_BV.shape[-1]:
            least_B1 = logits_BV.topk(self.top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        return logits_BV / self.temperature + self._noise(logits_BV)

    def _noise(self, like_BV: Tensor) -> Tensor:
        # Drawn on the CPU, so that a seed gives the same noise on every device.
        waits = [torch.empty(like_BV.shape[-1]).exponential_(generator=stream) for stream in self.streams]
        return -torch.stack(waits).log().to(like_BV.device)


def _stream(seed: int) -> torch.Generator:
    """A seed's own generator: the hash keeps the streams of neighbouring seeds apart."""
    digest = hashlib.sha256(f"drawing/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _encode(processor: Any, prompts: Sequence[str], **options: Any) -> Any:
    bos = processor.tokenizer.bos_token
    if bos and prompts[0].startswith(bos):
        options["add_special_tokens"] = False
    return processor(text=list(prompts), return_tensors="pt", padding=True, padding_side="left", **options)


def _janus(
    model: Any, processor: Any, settings: DrawSettings, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    tokens, config = processor.tokenizer, model.generation_config
    if getattr(config, "generation_kwargs", None) is None:
        config.generation_kwargs = {"boi_token_id": tokens.convert_tokens_to_ids(processor.image_start_token)}
    inputs = _encode(processor, prompts, generation_mode="image").to(model.device)
    codes_BL = model.generate(
        **inputs,
        generation_mode="image",
        do_sample=False,
        # guidance is in the choice: generate's own would come after it
        guidance_scale=1.0,
        logits_processor=[_SeededChoice(seeds, settings, guidance=settings.guidance)],
        bos_token_id=tokens.bos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    # One at a time: convolutions over a batch round otherwise than over one picture.
    pictures = [model.decode_image_tokens(codes_1L)[0].float() for codes_1L in codes_BL.split(1)]
    # The processor's own way to PIL pictures fails on transformers 5.23: it takes the name for a kind of tensor.
    levels_B3HW = processor.postprocess(pictures, return_tensors="pt")["pixel_values"].clip(0, 255).byte()
    return [Image.fromarray(np.ascontiguousarray(one.permute(1, 2, 0).cpu().numpy())) for one in levels_B3HW]


def _emu3(
    model: Any, processor: Any, settings: DrawSettings, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    shape = {"return_for_image_generation": True, "ratio": settings.ratio, "image_area": settings.image_area}
    inputs = _encode(processor, prompts, **shape)
    height, width = inputs.pop("image_sizes")[0]
    if height < 1 or width < 1:
        raise UserError(f"drawing image_area: {settings.image_area}; too few pixels for the ratio {settings.ratio}")
    guided: dict[str, Any] = {}
    if settings.guidance != 1:
        against = _encode(processor, [settings.negative_prompt or ""] * len(prompts), **shape).to(model.device)
        guided = {
            "guidance_scale": settings.guidance,
            "negative_prompt_ids": against["input_ids"],
            "negative_prompt_attention_mask": against["attention_mask"],
        }
    mapping = model.vocabulary_mapping
    codes = torch.tensor(mapping.image_tokens, device=model.device)
    line_end = torch.tensor([mapping.eol_token_id], device=model.device)
    # Each line of a picture has one token more, which ends it.
    choice = _SeededChoice(seeds, settings, allowed=lambda step: line_end if step % (width + 1) == width else codes)
    inputs = inputs.to(model.device)
    out = model.generate(
        **inputs,
        **guided,
        do_sample=False,
        logits_processor=[choice],
        max_new_tokens=height * (width + 1),
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    codes_BL = out[:, inputs["input_ids"].shape[1] :]
    ended_BL = torch.nn.functional.pad(codes_BL, (0, 3))  # decoding drops the three tokens that end a picture
    decode = model.decode_image_tokens
    pictures = [decode(image_tokens=row_1L, height=height, width=width)[0].float() for row_1L in ended_BL.split(1)]
    return list(processor.postprocess(pictures, return_tensors="PIL.Image.Image")["pixel_values"])
