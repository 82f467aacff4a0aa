"""Our embeddings of pictures by CLIP against open_clip's own, with the same random weights, in turn.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_clip --model ViT-L-14-quickgelu --pictures 8

Prints seconds a picture by the clock and of processors, medians, how many times as fast ours is, medians of turns, and
the largest distance between the embeddings of a picture as a part of its embedding's length.
"""

from __future__ import annotations

import argparse
import time
import warnings
from statistics import median

import open_clip
import torch

from vargpt_lightning.evaluation.features import clip_pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-L-14-quickgelu", help="a name of open_clip's")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = open_clip.create_model(arguments.model).eval()
    assert clip_pass.known(model)
    batch_BCHW = torch.randn(arguments.pictures, 3, *model.visual.image_size)
    jobs = {"open_clip": model.encode_image, "ours": lambda batch_BCHW: clip_pass.embed(model.visual, batch_BCHW)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    found = {}
    with torch.inference_mode():
        for turn in range(arguments.repeats + 1):  # the first warms up
            for name, job in jobs.items():
                began, used = time.perf_counter(), time.process_time()
                found[name] = job(batch_BCHW).double()
                if turn:
                    taken[name].append((time.perf_counter() - began, time.process_time() - used))
    for name, turns in taken.items():
        told = []
        for kind, place in (("by the clock", 0), ("of processors", 1)):
            seconds = median(one[place] for one in turns) / arguments.pictures
            ratio = median(one[place] / two[place] for one, two in zip(taken["open_clip"], turns, strict=True))
            told.append(f"{seconds:.3f} s {kind}, {ratio:.2f} times as fast")
        print(f"{name:>9}: {'; '.join(told)}")
    apart_B = (found["ours"] - found["open_clip"]).norm(dim=1) / found["open_clip"].norm(dim=1)
    print(f"apart by {apart_B.max():.1e}")


if __name__ == "__main__":
    main()
