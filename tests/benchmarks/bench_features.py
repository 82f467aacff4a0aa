"""Our Inception features against torch-fidelity's own, on the same pictures, with the same random network.

    python -m tests.benchmarks.bench_features --pictures 64 --size 256

Prints the seconds of each by the clock and of processors, how many times as fast ours is, and how far the Frechet
distance between the pictures' two halves is from torch-fidelity's: for the layout that is equal bit for bit and for the
faster one. Runs take turns, so that whatever else the machine does falls on all alike; figures are medians, ratios
those of turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from tests.evaluation.pictures import write_inception, write_pictures
from vargpt_lightning.evaluation.features.inception import INCEPTION, FeatureExtractor
from vargpt_lightning.evaluation.images.feature_store import measure_features
from vargpt_lightning.evaluation.images.picture_lists import list_pictures
from vargpt_lightning.evaluation.metrics.efficientnet import frechet_distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
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

    def own(extractor: FeatureExtractor) -> Callable[[], Tensor]:
        def job() -> Tensor:
            place = folder / str(next(works))
            found = measure_features(files, extractor, place, keep_layers=["2048"], batch_size=arguments.batch_size)
            return found.features["2048"]

        return job

    def library() -> Tensor:
        return extract_featuresdict_from_input_id(1, theirs, input1=str(folder / "pictures"), **options)["2048"]

    jobs = {"torch-fidelity": library, **{f"ours, {layout}": own(extractor) for layout, extractor in ours.items()}}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    distance: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for name, job in jobs.items():
            began, used = time.perf_counter(), time.process_time()
            features_ND = job()
            taken[name].append((time.perf_counter() - began, time.process_time() - used))
            distance[name] = frechet_distance(*features_ND.tensor_split(2))
    for name, rounds in taken.items():
        told = []
        for kind, place in (("by the clock", 0), ("of processors", 1)):
            seconds = median(one[place] for one in rounds)
            ratio = median(one[place] / two[place] for one, two in zip(taken["torch-fidelity"], rounds, strict=True))
            told.append(f"{seconds:7.2f} s {kind}, {ratio:.2f} times as fast")
        off = abs(distance[name] / distance["torch-fidelity"] - 1)
        print(f"{name:>20} {'; '.join(told)}; distance {distance[name]:.6f}, off by {off:.1e}")


if __name__ == "__main__":
    main()
