"""Multi-scale residual quantizer: features as ever finer token maps (VAR, arXiv 2404.02905, algorithms 1 and 2).

Every scale quantizes what the scales before it left over. All arithmetic here is in float32, whatever the precision of
the networks around it, because a rounded distance picks another code.

Legend: B batch, L tokens of all scales, l tokens of one scale, K scales, C code size, V vocabulary, H and W height and
width of the finest map, h and w those of one scale's map, N rows of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vargpt_lightning.models.core.exact import KeepsFloat32, full_precision
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.utils.errors import UserError

PhiSharing = Literal["shared", "partial", "separate"]

# A code counts as used on a scale when its smoothed hits reach this part of an even share of the batch's vectors.
USED_SHARE = 0.08
FAST_UPDATES = 100


Change = Callable[[int, Tensor], Tensor]
"""Given a scale and its codes, returns those that are fed on: later scales see these and have to make up for them,
while the scale's own codes stay what its features asked for (Infinity, arXiv 2412.04431, section 3.4)."""


class ScaleStep(NamedTuple):
    """What quantizing one scale gave: vectors (N, C), their codes (B, l), and the map (B, C, H, W) that these add."""

    rest_NC: Tensor
    idx_Bl: Tensor
    added_BCHW: Tensor


class QuantizerOutput(NamedTuple):
    """Straight-through features (B, C, H, W), the two loss terms (the second times beta) and the codes (B, L)."""

    f_hat_BCHW: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    idx_BL: Tensor


class Phi(nn.Conv2d):
    """Blend of a map and its 3x3 convolution, which mends what enlarging a coarse map lost (VAR, section 3.2)."""

    def __init__(self, code_size: int, ratio: float) -> None:
        super().__init__(code_size, code_size, kernel_size=3, padding=1)
        self.ratio = abs(ratio)

    def forward(self, h_BCHW: Tensor) -> Tensor:
        convolved_BCHW = super().forward(h_BCHW.to(self.weight.dtype)).to(h_BCHW.dtype)
        return h_BCHW * (1 - self.ratio) + convolved_BCHW * self.ratio


def phi_index_table(phi_count: int, num_scales: int) -> tuple[int, ...]:
    """Tell which of ``phi_count`` blends serves each scale: the one whose tick in [0, 1] is nearest to the scale's.

    Published weights depend on the float64 rounding of these ticks: with four blends, scales 2 and 7 of ten lie midway
    between two of them.
    """
    margin = 1 / 3 / phi_count if phi_count == 4 else 1 / 2 / phi_count
    ticks = np.linspace(margin, 1 - margin, phi_count)
    last = max(num_scales - 1, 1)
    return tuple(int(np.argmin(np.abs(ticks - k / last))) for k in range(num_scales))


def rows_to_map(h_BlC: Tensor, shape: tuple[int, int]) -> Tensor:
    """Lay the tokens of one scale, (B, l, C), out as a map (B, C, h, w) of this height and width."""
    return h_BlC.transpose(1, 2).unflatten(2, shape)


def map_to_rows(h_BChw: Tensor) -> Tensor:
    """Read a map (B, C, h, w) row by row as tokens (B, l, C)."""
    return h_BChw.flatten(2).transpose(1, 2)


class MultiScaleQuantizer(KeepsFloat32):
    """One codebook for all scales, the phi blends, and a record of how often each scale uses each code.

    ``phi`` says how many blends there are: one ("shared"), ``phi_count`` ("partial"), or one a scale ("separate").
    With ``normalize_codes`` the nearest code is the one of the largest cosine, else of the smallest distance.
    The codebook begins uniform in ±1/V, so that the first vectors spread over many codes. The record stays in float32:
    in 16 bits a count ends at 256, and a hundredth is lost beside it.
    """

    in_float32 = ("ema_vocab_hit_SV",)
    ema_vocab_hit_SV: Tensor

    def __init__(
        self,
        schedule: ScaleSchedule,
        code_size: int,
        vocabulary: int,
        *,
        beta: float = 0.25,
        residual_ratio: float = 0.5,
        phi: PhiSharing = "partial",
        phi_count: int = 4,
        normalize_codes: bool = False,
    ) -> None:
        super().__init__()
        if phi not in ("shared", "partial", "separate"):
            raise UserError(f"phi: got {phi!r}, expected 'shared', 'partial' or 'separate'")
        self.schedule, self.vocabulary = schedule, vocabulary
        self.beta, self.normalize_codes = beta, normalize_codes
        count = {"shared": 1, "partial": phi_count, "separate": schedule.num_scales}[phi]
        blends = [Phi(code_size, residual_ratio) if residual_ratio else nn.Identity() for _ in range(count)]
        self.phi_of_scale = phi_index_table(count, schedule.num_scales)
        if phi == "shared":
            self.quant_resi: nn.Module = nn.ModuleDict({"qresi": blends[0]})
        elif phi == "partial":
            self.quant_resi = nn.ModuleDict({"qresi_ls": nn.ModuleList(blends)})
        else:
            self.quant_resi = nn.ModuleList(blends)
        hits_SV = torch.zeros(schedule.num_scales, vocabulary, dtype=torch.float32)
        self.register_buffer("ema_vocab_hit_SV", hits_SV)
        self.embedding = nn.Embedding(vocabulary, code_size)
        nn.init.uniform_(self.embedding.weight, -1 / vocabulary, 1 / vocabulary)
        self.hit_updates = 0
        self.vectors_per_scale: float | None = None

    def phi(self, k: int) -> nn.Module:
        """Return the blend that serves scale ``k``."""
        blends: Any = self.quant_resi
        if isinstance(blends, nn.ModuleDict):
            if "qresi" in blends:
                return blends["qresi"]
            blends = blends["qresi_ls"]
        return blends[self.phi_of_scale[k]]

    def codebook(self) -> Tensor:
        """Return the codes (V, C) in float32."""
        return self.embedding.weight.float()

    def embed(self, idx: Tensor) -> Tensor:
        """Look codes up: indices of any shape give vectors of that shape with C appended."""
        return F.embedding(idx, self.codebook())

    @torch.no_grad()
    def nearest(self, z_NC: Tensor) -> Tensor:
        """Return the nearest code of each row (N,)."""
        codes_VC = self.codebook()
        if self.normalize_codes:
            return torch.argmax(F.normalize(z_NC, dim=-1) @ F.normalize(codes_VC, dim=-1).T, dim=1)
        distance_NV = z_NC.square().sum(dim=1, keepdim=True) + codes_VC.square().sum(dim=1)
        return torch.argmin(torch.addmm(distance_NV, z_NC, codes_VC.T, alpha=-2), dim=1)

    def contribution(self, k: int, h_BChw: Tensor, schedule: ScaleSchedule | None = None) -> Tensor:
        """Return what scale ``k``'s code vectors add to the reconstructed features: enlarged, then blended."""
        schedule = schedule or self.schedule
        if k < schedule.num_scales - 1:
            h_BChw = F.interpolate(h_BChw, size=schedule.final_shape, mode="bicubic")
        return self.phi(k)(h_BChw)

    def steps(
        self, f_BCHW: Tensor, change: Change | None = None, schedule: ScaleSchedule | None = None
    ) -> list[ScaleStep]:
        """Quantize features (B, C, H, W) scale by scale, each on what the coarser ones left over (VAR, algorithm 1).

        For `change` see `Change`; `schedule`, of as many scales as the quantizer's own, is that of other sizes.
        """
        schedule = schedule or self.schedule
        rest_BCHW = f_BCHW.detach().float()
        steps = []
        with full_precision(rest_BCHW):
            for k, shape in enumerate(schedule.shapes):
                last = k == schedule.num_scales - 1
                small_BChw = rest_BCHW if last else F.interpolate(rest_BCHW, size=shape, mode="area")
                rest_BlC = map_to_rows(small_BChw)
                rest_NC = rest_BlC.reshape(-1, rest_BlC.shape[-1])
                idx_Bl = self.nearest(rest_NC).unflatten(0, rest_BlC.shape[:2])
                fed_Bl = idx_Bl if change is None else change(k, idx_Bl)
                added_BCHW = self.contribution(k, rows_to_map(self.embed(fed_Bl), shape), schedule)
                rest_BCHW = rest_BCHW - added_BCHW.detach()
                steps.append(ScaleStep(rest_NC, idx_Bl, added_BCHW))
        return steps

    def accumulate(
        self, k: int, f_hat_BCHW: Tensor, h_BChw: Tensor, schedule: ScaleSchedule | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Add scale ``k``'s code vectors; return the new f_hat and the next scale's input (B, l, C), at last None."""
        last = k == (schedule or self.schedule).num_scales - 1
        with full_precision(f_hat_BCHW):
            f_hat_BCHW = f_hat_BCHW + self.contribution(k, h_BChw.float(), schedule)
            return f_hat_BCHW, None if last else self.next_input(k, f_hat_BCHW, schedule)

    def next_input(self, k: int, f_hat_BCHW: Tensor, schedule: ScaleSchedule | None = None) -> Tensor:
        """Return the input (B, l, C) of the scale after ``k``: the sum so far, resized to it."""
        shape = (schedule or self.schedule).shapes[k + 1]
        return map_to_rows(F.interpolate(f_hat_BCHW, size=shape, mode="area"))

    def forward(self, f_BCHW: Tensor, schedule: ScaleSchedule | None = None) -> QuantizerOutput:
        """Quantize for training: straight-through features and the loss terms, averaged over scales.

        The terms are those of VQ-VAE (arXiv 1711.00937, equation 3), between the features and f_hat after each scale.
        """
        f_BCHW = f_BCHW.float()
        steps = self.steps(f_BCHW, schedule=schedule)
        with full_precision(f_BCHW):
            f_hat_BCHW = torch.zeros_like(f_BCHW)
            codebook_loss = commitment_loss = f_BCHW.new_zeros(())
            for step in steps:
                f_hat_BCHW = f_hat_BCHW + step.added_BCHW
                codebook_loss = codebook_loss + F.mse_loss(f_hat_BCHW, f_BCHW.detach())
                commitment_loss = commitment_loss + self.beta * F.mse_loss(f_hat_BCHW.detach(), f_BCHW)
            straight_BCHW = f_BCHW + (f_hat_BCHW - f_BCHW).detach()
        if self.training:
            self.record_hits(steps)
        scale = 1 / len(steps)
        idx_BL = torch.cat([step.idx_Bl for step in steps], dim=1)
        return QuantizerOutput(straight_BCHW, codebook_loss * scale, commitment_loss * scale, idx_BL)

    @torch.no_grad()
    def record_hits(self, steps: list[ScaleStep]) -> None:
        """Mix this batch's hits, summed over all ranks, into the smoothed record.

        The counter advances once a scale, as in the published training code: the very first update copies, the next
        ones mix a tenth in, and from the hundredth on a hundredth.
        """
        hits_SV = torch.zeros_like(self.ema_vocab_hit_SV)
        for k, step in enumerate(steps):
            idx_N = step.idx_Bl.flatten()
            hits_SV[k].scatter_add_(0, idx_N, torch.ones_like(idx_N, dtype=hits_SV.dtype))
        world = 1
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(hits_SV)
            world = dist.get_world_size()
        mix = [0.1 if self.hit_updates + k < FAST_UPDATES else 0.01 for k in range(len(steps))]
        mix_S1 = torch.tensor(mix, dtype=hits_SV.dtype, device=hits_SV.device).unsqueeze(1)
        # An empty first row, rather than the counter, marks the start: a loaded record is then never thrown away.
        mix_S1[0] = torch.where(self.ema_vocab_hit_SV[0].any(), mix_S1[0], 1.0)
        self.ema_vocab_hit_SV.mul_(1 - mix_S1).add_(hits_SV * mix_S1)
        self.hit_updates += len(steps)
        self.vectors_per_scale = float(world * steps[-1].idx_Bl.numel())

    def codes_in_use(self) -> Tensor:
        """Return which codes each scale uses, (S, V).

        A code is in use when its smoothed hits reach 0.08 of an even share of the finest map's vectors in the latest
        training batch (all ranks), the definition of the published training code. After loading, when no batch was
        seen, the finest scale's smoothed hits stand for that number.
        """
        vectors = self.vectors_per_scale
        if vectors is None:
            vectors = max(float(self.ema_vocab_hit_SV[-1].sum()), 1.0)
        return self.ema_vocab_hit_SV >= vectors / self.vocabulary * USED_SHARE

    def usage_per_scale(self) -> list[float]:
        """Return for each scale the percentage of codes in use."""
        return (self.codes_in_use().float().mean(dim=1) * 100).tolist()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Weights trained for another scale schedule load; their hit record means nothing here and is left out.
        key, own = prefix + "ema_vocab_hit_SV", self.ema_vocab_hit_SV
        if key in state_dict and len(state_dict[key]) != len(own):
            state_dict[key] = torch.zeros(own.shape, dtype=own.dtype, device=state_dict[key].device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
