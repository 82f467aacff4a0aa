"""What the tokens of a drawing attend to inside the language model.

Legend: N layers, H heads, L visual tokens of all scales, T tokens of the sequence, n new tokens of a pass, S positions
that are seen, V codebook.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vargpt_lightning.models.conditions import rows_before
from vargpt_lightning.models.core.masks import attention_mask, kernel_mask
from vargpt_lightning.models.language.llama import LanguageModel
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError


class DrawingAttention(NamedTuple):
    """Attention weights (N, H, L, T) of a drawing's tokens to context and drawing, and the drawing's logits (L, V).

    The first T - L positions are the context, the start token its last. The weights of each token add up to 1.
    """

    weights_NHLT: Tensor
    logits_LV: Tensor


@torch.no_grad()
def drawing_attention(model: VARGPTModel, context: Sequence[int], indices_L: Tensor) -> DrawingAttention:
    """Return what each token of a drawing attends to, with the prompt in sight.

    One pass over the finished drawing; step by step, with the cache, the weights were the same (see
    `recorded_attention`). Guidance adds a second pass without the prompt, which is not shown here.

    Args:
        model: in evaluation mode.
        context: the token ids before the drawing, of text alone, the start token last.
        indices_L: the drawing's codes.

    Raises:
        UserError: the context does not end with the start token or holds pictures, or the codes are too few or many.
    """
    tokens, L = model.tokens, model.schedule.num_tokens
    if not context or context[-1] != tokens.image_gen_start or {tokens.image, tokens.image_gen} & set(context):
        raise UserError("context: expected token ids of text that end with the start token of a drawing")
    if indices_L.shape[:1] != (L,):
        raise UserError(f"indices: got shape {tuple(indices_L.shape)}, expected {L} tokens")
    device = model.language_model.lm_head.weight.device
    ids_1T = torch.tensor([[*context, *[tokens.image_gen] * model.picture_length]], device=device)
    layout, last = model.layout(ids_1T), len(context) + L
    drawn = model.drawn_pictures({"drawn_indices": indices_L[None].to(device)}, dropping=False)
    assert drawn is not None
    embeds_1TC = model.embed({"input_ids": ids_1T}, layout, drawn)
    valid_1T = torch.ones_like(ids_1T, dtype=torch.bool)
    mask = attention_mask(layout, valid_1T, model.schedule, model.settings.visual_attention)
    language = model.language_model
    with recorded_attention(language) as weights:
        hidden_1TC = language.model(embeds_1TC, kernel_mask(mask, "eager", embeds_1TC.dtype))
    decoder = model.visual_decoder
    drawn_1LC = model.generation_projector_out(hidden_1TC[:, len(context) : last])
    states = hidden_1TC if model.conditions.reads == "hidden" else model.embed_seen({"input_ids": ids_1T})
    before = rows_before(states, layout)
    condition = model.conditions.heard(model.conditions.told(drawn.classes_Q, before), before)
    logits_1LV = decoder.decode(drawn_1LC, condition)
    weights_NHLT = torch.stack([weights_1HTT[0, :, len(context) : last, :last] for weights_1HTT in weights]).float()
    return DrawingAttention(weights_NHLT, logits_1LV[0])


@contextmanager
def recorded_attention(language_model: LanguageModel) -> Iterator[list[Tensor]]:
    """Yield a list that gets the attention weights (B, H, n, S) of every layer of every pass while the block runs.

    Meanwhile attention runs by the plain ("eager") kernel, since no other gives its weights away.
    """
    found: list[Tensor] = []

    def record(module: nn.Module, arguments: Any, output: tuple[Tensor, Tensor]) -> None:
        found.append(output[1].detach())

    before = language_model.kernel
    hooks = [layer.get_submodule("self_attn").register_forward_hook(record) for layer in language_model.blocks]
    language_model.kernel = "eager"
    try:
        yield found
    finally:
        language_model.kernel = before
        for hook in hooks:
            hook.remove()
