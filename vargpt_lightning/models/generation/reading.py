"""Prompts read into a cache: their ids, and the pictures in them, seen and drawn.

Legend: R rows, T prompt length, C width, Q drawn pictures, L visual tokens of all scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.conditions import rows_before
from vargpt_lightning.models.core.masks import attention_mask, find_pictures
from vargpt_lightning.models.generation.answers import Prompt
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError

Drawn = tuple[int, Tensor]
"""Which of the model's sizes a drawn picture has, and its codes (L,)."""


class Read(NamedTuple):
    """Of contexts that were read: the last hidden state of each, and by how much positions behind it are larger than
    places in the sequence (less than 0 behind pictures whose positions are those of a grid)."""

    last_RC: Tensor
    leads: list[int]


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


@dataclass(frozen=True)
class Pictures:
    """The pictures of several prompts in their order: features of the seen ones, the drawn ones, and the seen ones'
    rows and columns of tokens where the language model counts them."""

    features_PNC: Tensor | None
    drawn: list[Drawn]
    shapes_P2: Tensor | None = None


def read_contexts(
    model: VARGPTModel,
    cache: LanguageCache,
    slots: Sequence[int],
    contexts: Sequence[Sequence[int]],
    pictures: Pictures,
) -> Read:
    """Run contexts through the language model into rows of a cache."""
    device = model.language_model.lm_head.weight.device
    longest = max(map(len, contexts))
    ids_RT = torch.full((len(contexts), longest), model.tokens.pad, device=device)
    valid_RT = torch.zeros_like(ids_RT, dtype=torch.bool)
    for r, context in enumerate(contexts):
        ids_RT[r, : len(context)] = torch.tensor(context, device=device)
        valid_RT[r, : len(context)] = True
    sizes = [size for size, _ in pictures.drawn]
    schedules, lengths = (
        [model.schedules[size] for size in sizes],
        [model.config.picture_lengths[size] for size in sizes],
    )
    if len(set(sizes)) > 1:
        lengths = [model.config.picture_lengths[size] for size in sizes]
        layout = find_pictures(ids_RT, model.tokens, [each.num_tokens for each in schedules], lengths)
    else:
        layout = model.at(next(iter(sizes), 0)).layout(ids_RT)
    batch = {"input_ids": ids_RT, "vision_features": pictures.features_PNC, "seen_shapes": pictures.shapes_P2}
    embeds_RTC = model.embed_seen(batch)
    before = rows_before(embeds_RTC, layout) if model.conditions.reads == "embeddings" else None
    embeds_RTC = model.place_drawn(embeds_RTC, layout, _words(model, pictures.drawn, before))
    mask = attention_mask(layout, valid_RT, schedules, model.settings.visual_attention)
    places_RT = torch.arange(longest, device=device).expand_as(ids_RT)
    positions = model.grid_positions(batch) if model.language_model.three_dimensional else None
    hidden_RTC = cache.run(embeds_RTC, places_RT, mask, rows=slots, positions_Rn=positions)
    last_R = torch.tensor([len(context) - 1 for context in contexts], device=device)
    each_R = torch.arange(len(contexts), device=device)
    leads = [0] * len(contexts)
    if positions is not None:
        leads = (positions[:, each_R, last_R].amax(0) - last_R).tolist()
    return Read(hidden_RTC[each_R, last_R], leads)


def _words(model: VARGPTModel, drawn: Sequence[Drawn], before: TextRows | None) -> Tensor | None:
    """Drawn pictures as the language model's inputs, one behind the other (1, N, C)."""
    found: dict[int, Tensor] = {}
    for size in dict.fromkeys(size for size, _ in drawn):
        places = [place for place, (own, _) in enumerate(drawn) if own == size]
        view = model.at(size)
        codes = {"drawn_indices": torch.stack([drawn[place][1] for place in places])}
        pictures = view.drawn_pictures(codes, dropping=False)
        assert pictures is not None
        told = view.conditions.told(pictures.classes_Q, None if before is None else before.of_rows(places))
        found |= dict(zip(places, view.words(pictures, told), strict=True))
    return torch.cat([found[place] for place in range(len(drawn))])[None] if drawn else None


def pictures_of(model: VARGPTModel, prompts: Sequence[Prompt]) -> Pictures:
    """Return the prompts' pictures as one batch."""
    device = model.language_model.lm_head.weight.device
    seen, shapes = [], []
    spatial = model.language_model.three_dimensional
    for prompt in prompts:
        if prompt.vision_features is not None:
            seen.append(prompt.vision_features.to(device))
            if prompt.seen_shapes is not None:
                shapes.append(prompt.seen_shapes.to(device))
        elif prompt.pixel_values is not None and len(prompt.pixel_values):
            seen.append(model.see(prompt.pixel_values.to(device)))
            if spatial:
                shapes.append(model.seen_shapes(prompt.pixel_values).to(device))
    return Pictures(
        torch.cat(seen) if seen else None,
        [found for prompt in prompts for found in drawn_of(model, prompt)],
        torch.cat(shapes) if shapes else None,
    )


def drawn_of(model: VARGPTModel, prompt: Prompt) -> list[Drawn]:
    """Return the pictures that were drawn earlier in a prompt."""
    device = model.language_model.lm_head.weight.device
    codes, pixels_Q3HW = prompt.drawn_indices, prompt.drawn_pixels
    if codes is None and pixels_Q3HW is not None and len(pixels_Q3HW):
        codes = model.at(next(iter(prompt.drawn_sizes), 0)).drawn_indices({"drawn_pixels": pixels_Q3HW.to(device)})
    if codes is None:
        return []
    sizes = list(prompt.drawn_sizes) or [0] * len(codes)
    return [(size, indices_L.to(device)) for size, indices_L in zip(sizes, codes, strict=True)]
