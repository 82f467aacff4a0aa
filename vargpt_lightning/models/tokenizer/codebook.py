"""A codebook laid over the features of data, instead of one that training has to find.

Legend: N vectors, M centres, B pictures, C code size, H and W height and width, h and w those of one scale's
map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.quantizer import Phi, map_to_rows, rows_to_map

CHUNK = 32


@torch.no_grad()
def initialize_codebook(tokenizer: ImageTokenizer, x_B3HW: Tensor, iterations: int = 10) -> list[float]:
    """Set the codes by k-means on what each scale leaves over, coarse to fine, and the phi blends to the identity.

    Each scale brings codes in proportion to its side and may use those of the coarser ones. The random numbers are
    torch's global ones.

    Returns:
        for each scale the share of the features' variance that is left after it.
    """
    quantizer, schedule = tokenizer.quantize, tokenizer.schedule
    training = tokenizer.training
    tokenizer.eval()
    f_BCHW = torch.cat([tokenizer.features(chunk) for chunk in x_B3HW.split(CHUNK)]).float()
    tokenizer.train(training)
    for part in quantizer.modules():
        if isinstance(part, Phi):
            torch.nn.init.dirac_(part.weight)
            assert part.bias is not None
            torch.nn.init.zeros_(part.bias)
    codes_VC = quantizer.embedding.weight
    bounds = [round(tokenizer.vocabulary * share) for share in _shares(schedule.shapes)]
    rest_BCHW, left, start = f_BCHW, [], 0
    for k, (shape, end) in enumerate(zip(schedule.shapes, bounds, strict=True)):
        small_BChw = rest_BCHW if shape == schedule.final_shape else F.interpolate(rest_BCHW, shape, mode="area")
        rows_BlC = map_to_rows(small_BChw)
        rows_NC = rows_BlC.reshape(-1, rows_BlC.shape[-1])
        codes_VC[start:end] = kmeans(rows_NC, end - start, iterations).to(codes_VC.dtype)
        nearest_Bl = torch.cdist(rows_NC, codes_VC[:end].float()).argmin(1).view(rows_BlC.shape[:2])
        rest_BCHW = rest_BCHW - quantizer.contribution(k, rows_to_map(codes_VC[nearest_Bl].float(), shape))
        left.append(float(rest_BCHW.var() / f_BCHW.var()))
        start = end
    return left


def _shares(shapes: tuple[tuple[int, int], ...]) -> list[float]:
    """Return the cumulated share of the codes that each scale brings."""
    sides = [math.sqrt(height * width) for height, width in shapes]
    return [sum(sides[: k + 1]) / sum(sides) for k in range(len(sides))]


def kmeans(rows_NC: Tensor, centres: int, iterations: int) -> Tensor:
    """Return `centres` means (M, C) of the rows by Lloyd's algorithm, started from random rows.

    Centres that lose all their rows stay where they are; with fewer rows than centres, rows repeat with a little noise.
    A seed means the same start on every device.
    """
    order_N = torch.randperm(len(rows_NC)).to(rows_NC.device)
    repeats = math.ceil(centres / max(len(rows_NC), 1))
    centres_MC = rows_NC[order_N.repeat(repeats)[:centres]].clone()
    if repeats > 1:
        centres_MC[len(rows_NC) :] += 0.1 * rows_NC.std() * torch.randn(centres_MC[len(rows_NC) :].shape).to(centres_MC)
    for _ in range(iterations):
        nearest_N = torch.cdist(rows_NC, centres_MC).argmin(1)
        counts_M1 = torch.bincount(nearest_N, minlength=centres)[:, None]
        sums_MC = torch.zeros_like(centres_MC).index_add_(0, nearest_N, rows_NC)
        centres_MC = torch.where(counts_M1 > 0, sums_MC / counts_M1.clamp(min=1), centres_MC)
    return centres_MC
