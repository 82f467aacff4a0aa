"""Our Inception features against torch-fidelity's own, on the same pictures, with the same random network.

    python -m tests.benchmarks.bench_features --pictures 64 --size 256

Prints the seconds of each and their ratio (below 1: ours is faster), for the layout that is equal bit for bit and for
the faster one. Runs take turns, so that whatever else the machine does falls on all alike; the best of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.evaluation.pictures import write_inception, write_pictures
from vargpt_lightning.evaluation.features.inception import INCEPTION, FeatureExtractor
from vargpt_lightning.evaluation.images.feature_store import measure_features
from vargpt_lightning.evaluation.images.picture_lists import list_pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    weights = write_inception(folder / "inception.pth")
    write_pictures(folder / "pictures", arguments.pictures, arguments.size)
    cuda = arguments.device != "cpu"
    options = {"cuda": cuda, "verbose": False, "batch_size": arguments.batch_size}
    theirs = create_feature_extractor(INCEPTION, ["2048"], feature_extractor_weights_path=str(weights), **options)
    ours = {
        layout: FeatureExtractor(["2048"], weights, device=arguments.device, layout=layout)
        for layout in ("contiguous", "channels_last")
    }
    files, works = list_pictures(folder / "pictures"), iter(range(1000))

    def own(extractor: FeatureExtractor) -> Callable[[], object]:
        return lambda: measure_features(
            files, extractor, folder / str(next(works)), sum_layers=["2048"], batch_size=arguments.batch_size
        )

    def library() -> object:
        return extract_featuresdict_from_input_id(1, theirs, input1=str(folder / "pictures"), **options)

    jobs = {"torch-fidelity": library, **{f"ours, {layout}": own(extractor) for layout, extractor in ours.items()}}
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(arguments.repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - began)
    for name, seconds in best.items():
        ratio = seconds / best["torch-fidelity"]
        print(f"{name:>24}  {seconds:7.2f} s  {arguments.pictures / seconds:7.1f} pictures/s  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
