"""CMMD, density and coverage beside the authors' own functions, on random features.

    python -m tests.benchmarks.agree_metrics CMMD_DISTANCE_PY [--cases 200]

CMMD_DISTANCE_PY is a copy of distance.py of github.com/sayakpaul/cmmd-pytorch (the port that its authors name); the
package prdc has to be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import runpy
import sys
from pathlib import Path

import numpy as np
import torch

from vargpt_lightning.evaluation.metrics.cmmd import gaussian_discrepancy
from vargpt_lightning.evaluation.metrics.density_coverage import density_coverage
from vargpt_lightning.evaluation.metrics.precision_recall import precision_recall


def main() -> int:
    from prdc import compute_prdc

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cmmd", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    arguments = parser.parse_args()
    mmd = runpy.run_path(str(arguments.cmmd))["mmd"]
    generator = np.random.default_rng(0)
    worst = counts = same = 0.0
    for _ in range(arguments.cases):
        n, m, d, k = generator.integers(20, 300), generator.integers(20, 300), generator.integers(2, 64), 5
        drawn = generator.normal(0.3, 1.1, (n, d)).astype(np.float32)
        real = generator.normal(0, 1, (m, d)).astype(np.float32)
        x, y = torch.from_numpy(drawn), torch.from_numpy(real)
        theirs = float(mmd(drawn.astype(np.float64), real.astype(np.float64)))
        worst = max(worst, abs(gaussian_discrepancy(x, y)["cmmd"] - theirs) / abs(theirs))
        with contextlib.redirect_stdout(io.StringIO()):
            said = compute_prdc(real.astype(np.float64), drawn.astype(np.float64), nearest_k=k)
        ours = density_coverage(x, y, neighbours=k)
        counts += abs(ours["density"] - said["density"]) > 1e-12 or abs(ours["coverage"] - said["coverage"]) > 1e-12
        both = precision_recall(x, y, neighbours=k)
        same += any(abs(both[name] - said[name]) > 1e-6 for name in ("precision", "recall"))  # in single precision
    print(f"CMMD: {arguments.cases} pairs of sets, at most {worst:.1e} of it apart")
    print(f"density and coverage: {arguments.cases} pairs of sets, {counts:.0f} differ")
    print(f"precision and recall (torch-fidelity's) beside prdc's: {same:.0f} differ")
    return int(worst > 1e-9 or counts > 0)


if __name__ == "__main__":
    sys.exit(main())
