"""Codes that are changed on their way to later scales, at random.

Legend: B batch, L tokens of all scales, l tokens of one scale, D numbers of a token's code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.shared_random import Draws, draw, draw_shared
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.models.tokenizer.quantizer import Change

_SEEDS = 2**24
"""A float32 from [0, 1) takes so many values."""


def random_change(tokenizer: MultiScaleTokenizer, settings: SelfCorrection, batch: int, draws: Draws = None) -> Change:
    """Return what changes the codes of a batch's pictures, scale by scale.

    What becomes of a picture does not depend on how the global batch is spread over processes.
    """
    schedule, device = tokenizer.schedule, tokenizer.device
    steps = int(100 * settings.strength + 1e-6) + 1
    shares_BK = (draw_shared(schedule.num_scales, batch, device, draws) * steps).floor().clamp_max(steps - 1) / 100
    shares_BK[:, settings.scales :] = 0
    seeds_B = (draw(batch, device, draws) * _SEEDS).long()
    shape, others = tokenizer.code_shape, tokenizer.vocabulary - 1
    if device.type == "meta":  # where there are no numbers, only their room is asked for
        chances = torch.rand(batch, *shape, device=device)
        offsets = torch.randint(others, (batch, *shape), device=device)
    else:
        streams = [torch.Generator(device).manual_seed(seed) for seed in seeds_B.tolist()]
        chances = torch.stack([torch.rand(shape, generator=stream, device=device) for stream in streams])
        offsets = 1 + torch.stack([torch.randint(others, shape, generator=stream, device=device) for stream in streams])

    def change(k: int, codes: Tensor) -> Tensor:
        part = schedule.slices[k]
        changed = (codes + offsets[:, part]) % tokenizer.vocabulary
        share = shares_BK[:, k].view(-1, *[1] * (chances.ndim - 1))
        return torch.where(chances[:, part] < share, changed, codes)

    return change
