"""Prompts read into a cache: their ids, and the pictures in them, seen and drawn.

Legend: R rows, T prompt length, C width, Q drawn pictures, L visual tokens of all scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.models.core.masks import attention_mask, find_pictures
from vargpt_lightning.models.generation.answers import Prompt
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError


def context_of(model: VARGPTModel, prompt: Prompt, index: int) -> list[int]:
    """Return the prompt's ids that are read at once: all but a start token at the end, which is drawn from.

    Raises:
        UserError: there are none, or too many for the context; names the prompt by its index.
    """
    ids = [int(token) for token in prompt.input_ids]
    room = model.config.language.max_positions
    if len(ids) >= room:
        raise UserError(f"prompt {index}: got {len(ids)} tokens, expected fewer than the context's {room}")
    context = ids[:-1] if ids and ids[-1] == model.tokens.image_gen_start else ids
    if not context:
        raise UserError(f"prompt {index}: got {len(ids)} tokens, expected some before the answer")
    return context


def read_contexts(
    model: VARGPTModel,
    cache: LanguageCache,
    slots: Sequence[int],
    contexts: Sequence[Sequence[int]],
    pictures: dict[str, Tensor],
) -> Tensor:
    """Run contexts through the language model into rows of a cache; return the last hidden state of each, (R, C)."""
    device = model.language_model.lm_head.weight.device
    longest = max(map(len, contexts))
    ids_RT = torch.full((len(contexts), longest), model.tokens.pad, device=device)
    valid_RT = torch.zeros_like(ids_RT, dtype=torch.bool)
    for r, context in enumerate(contexts):
        ids_RT[r, : len(context)] = torch.tensor(context, device=device)
        valid_RT[r, : len(context)] = True
    layout = find_pictures(ids_RT, model.tokens, model.schedule.num_tokens)
    batch = {"input_ids": ids_RT, **pictures}
    embeds_RTC = model.embed(batch, layout, model.drawn_pictures(batch))
    mask = attention_mask(layout, valid_RT, model.schedule, model.settings.visual_attention)
    places_RT = torch.arange(longest, device=device).expand_as(ids_RT)
    hidden_RTC = cache.run(embeds_RTC, places_RT, mask, rows=slots)
    last_R = torch.tensor([len(context) - 1 for context in contexts], device=device)
    return hidden_RTC[torch.arange(len(contexts), device=device), last_R]


def pictures_of(model: VARGPTModel, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """Return the prompts' pictures as one batch: features of the seen ones, codes of the drawn ones."""
    device = model.language_model.lm_head.weight.device
    seen, drawn = [], []
    for prompt in prompts:
        if prompt.vision_features is not None:
            seen.append(prompt.vision_features.to(device))
        elif prompt.pixel_values is not None and len(prompt.pixel_values):
            seen.append(model.see(prompt.pixel_values.to(device)))
        given = {"drawn_indices": prompt.drawn_indices, "drawn_pixels": prompt.drawn_pixels}
        own = {key: value.to(device) for key, value in given.items() if value is not None}
        indices_QL = model.drawn_indices(own)
        if indices_QL is not None:
            drawn.append(indices_QL)
    pictures: dict[str, Any] = {}
    if seen:
        pictures["vision_features"] = torch.cat(seen)
    if drawn:
        pictures["drawn_indices"] = torch.cat(drawn)
    return pictures
