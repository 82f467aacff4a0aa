"""Times Muon's orthogonalisation against the iterations as they are written down, in turn, at the default's shapes.

python -m tests.benchmarks.bench_muon --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from vargpt_lightning.modules.optim.newton_schulz import COEFFICIENTS, orthogonalize

SHAPES = [(768, 256), (256, 256), (1024, 256), (256, 1024), (64, 576), (16, 144)]


def as_written(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    if x.shape[0] > x.shape[1]:
        return as_written(x.T).T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("shape | as written ms | ours ms | ratio")
    for shape in SHAPES:
        matrix = torch.randn(shape)
        times = []
        for _ in range(args.repeats + 1):
            marks = [time.perf_counter()]
            for way in (as_written, orthogonalize):
                way(matrix)
                marks.append(time.perf_counter())
            times.append((marks[1] - marks[0], marks[2] - marks[1]))
        old, new = (1e3 * statistics.median(column) for column in zip(*times[1:], strict=True))
        print(f"{shape} | {old:.2f} | {new:.2f} | {statistics.median(a / b for a, b in times[1:]):.2f}")


if __name__ == "__main__":
    main()
