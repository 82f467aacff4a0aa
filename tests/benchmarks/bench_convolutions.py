"""Times large 3x3 convolutions without a gradient on CPU, in turn: torch's own and Winograd's.

python -m tests.benchmarks.bench_convolutions --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from vargpt_lightning.models.tokenizer.winograd import Conv3x3, winograd_convolution

LAYERS = [(160, 160, 256), (160, 160, 128), (320, 160, 128), (320, 320, 64), (640, 640, 32), (64, 64, 128)]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("channels in, out, side | torch ms | Winograd ms | ratio")
    for channels_in, channels_out, side in LAYERS:
        layer = Conv3x3(channels_in, channels_out)
        contiguous = torch.randn(1, channels_in, side, side)
        channels_last = contiguous.contiguous(memory_format=torch.channels_last)
        times = []
        for _ in range(args.repeats + 1):
            marks = [time.perf_counter()]
            nn.Conv2d.forward(layer, contiguous)
            marks.append(time.perf_counter())
            winograd_convolution(channels_last, layer.weight, layer.bias)
            marks.append(time.perf_counter())
            times.append((marks[1] - marks[0], marks[2] - marks[1]))
        own, ours = (1e3 * statistics.median(column) for column in zip(*times[1:], strict=True))
        ratio = statistics.median(a / b for a, b in times[1:])
        print(f"{channels_in}, {channels_out}, {side} | {own:.1f} | {ours:.1f} | {ratio:.2f}")


if __name__ == "__main__":
    main()
