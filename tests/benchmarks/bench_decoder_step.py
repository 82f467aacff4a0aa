"""Times a training step of the visual decoder on CPU, in turn: by plain operations, and by those that keep less.

python -m tests.benchmarks.bench_decoder_step --depth 8 --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vargpt_lightning.models.decoder import attention, lean
from vargpt_lightning.models.decoder.visual_decoder import VisualDecoder

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    decoder = VisualDecoder(scales=SCALES, code_size=32, vocabulary=4096, depth=args.depth)
    labels_B, inputs_BLC = torch.arange(args.batch), torch.randn(args.batch, 679, 32)
    usual, times = lean.lean, []
    for _ in range(args.repeats + 1):
        marks = [time.perf_counter()]
        for way in (lambda _: False, usual):
            lean.lean = attention.lean = way
            decoder(labels_B, inputs_BLC).square().mean().backward()
            decoder.zero_grad()
            marks.append(time.perf_counter())
        times.append((marks[1] - marks[0], marks[2] - marks[1]))
    plain, ours = (statistics.median(column) for column in zip(*times[1:], strict=True))
    ratio = statistics.median(a / b for a, b in times[1:])
    print(f"plain {plain:.2f} s | keeping less {ours:.2f} s | ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
