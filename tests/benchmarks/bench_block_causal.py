"""Times block-causal attention on this machine: masked, with the last scale apart, and one call per scale.

python -m tests.benchmarks.bench_block_causal --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.attention import block_causal_attention

SCHEDULES = [
    (1, 2, 4, 8),
    (1, 2, 3, 4, 6, 8),
    (1, 2, 3, 4, 6, 8, 10, 12),
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
]


def per_scale(q: Tensor, k: Tensor, v: Tensor, slices: tuple[slice, ...]) -> Tensor:
    attend = F.scaled_dot_product_attention
    parts = [attend(q[:, :, part], k[:, :, : part.stop], v[:, :, : part.stop], scale=1.0) for part in slices]
    return torch.cat(parts, dim=2)


def seconds(attend: Callable[..., Tensor], qkv: list[Tensor]) -> float:
    start = time.perf_counter()
    attend(*qkv).square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'tokens':>6} {'masked':>10} {'last apart':>10} {'per scale':>10}   masked / last apart")
    for sizes in SCHEDULES:
        schedule = ScaleSchedule(sizes)
        shape = (args.batch, args.heads, schedule.num_tokens, args.width // args.heads)
        qkv = [torch.randn(shape, requires_grad=True) for _ in range(3)]
        last, mask_LL = schedule.slices[-1].start, schedule.block_causal_mask()
        ways = [
            partial(block_causal_attention, mask_LL=mask_LL, last=last, scale=1.0, split=False),
            partial(block_causal_attention, mask_LL=mask_LL, last=last, scale=1.0, split=True),
            partial(per_scale, slices=schedule.slices),
        ]
        rounds = [[seconds(way, qkv) for way in ways] for _ in range(args.repeats)]
        times = [min(column) for column in zip(*rounds, strict=True)]
        figures = " ".join(f"{1e3 * time:7.1f} ms" for time in times)
        print(f"{schedule.num_tokens:6d} {figures}   {times[0] / times[1]:.2f}")


if __name__ == "__main__":
    main()
