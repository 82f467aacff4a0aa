"""Group normalisation that stays exact on large channels-last maps.

torch's kernel for that format adds all squares of a group one after the other in float32, which on maps of 256 x 256
costs two decimal places; the one for contiguous maps does not.

Legend: B batch, C channels, H and W height and width, G groups, P positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHUNK = 2**17  # values whose squares stay in the cache


def without_gradient(x_BCHW: Tensor, weight: Tensor) -> bool:
    """Tell whether float32 maps on CPU are computed with for their values alone, by no compiler and no tracer."""
    if x_BCHW.device.type != "cpu" or type(x_BCHW) is not Tensor or torch.is_autocast_enabled("cpu"):
        return False
    differentiates = torch.is_grad_enabled() and (x_BCHW.requires_grad or weight.requires_grad)
    exact = x_BCHW.dtype == weight.dtype == torch.float32
    return exact and not differentiates and not torch.compiler.is_compiling()


class GroupNorm(nn.GroupNorm):
    """Group normalisation with sums in float64 on channels-last maps that need no gradient."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channels_last = not x_BCHW.is_contiguous() and x_BCHW.is_contiguous(memory_format=torch.channels_last)
        if channels_last and without_gradient(x_BCHW, self.weight):
            return self._normalize(x_BCHW)
        return super().forward(x_BCHW)

    @torch.no_grad()
    def _normalize(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        x_BPC = x_BCHW.permute(0, 2, 3, 1).view(B, H * W, C)
        sums_BC = squares_BC = x_BCHW.new_zeros(B, C, dtype=torch.float64)
        for chunk_BpC in x_BPC.split(max(1, CHUNK // C), dim=1):
            sums_BC = sums_BC + chunk_BpC.sum(1)
            squares_BC = squares_BC + chunk_BpC.square().sum(1)
        count, groups = H * W * C // self.num_groups, (B, self.num_groups, -1)
        mean_BG1 = sums_BC.view(groups).sum(-1, keepdim=True) / count
        variance_BG1 = squares_BC.view(groups).sum(-1, keepdim=True) / count - mean_BG1.square()
        scale_BC = ((variance_BG1 + self.eps).rsqrt() * self.weight.view(groups[1:])).flatten(1)
        shift_BC = self.bias - (mean_BG1 * scale_BC.view(groups)).flatten(1)
        y_BPC = torch.addcmul(shift_BC.float()[:, None], x_BPC, scale_BC.float()[:, None])
        return y_BPC.view(B, H, W, C).permute(0, 3, 1, 2)
