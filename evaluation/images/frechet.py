"""Distances between two sets of pictures from their features, by torch-fidelity's own functions.

FID (Heusel et al., 2017), KID (Binkowski et al., 2018), Inception Score (Salimans et al., 2016), precision and recall
(Kynkäänniemi et al., 2019). Drawn pictures come first, real ones second, as the library has it.

Shapes: N drawn pictures, M real pictures, D feature channels, V classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from torch import Tensor

from vargpt_lightning.evaluation.features.feature_sums import Moments, require_alike
from vargpt_lightning.utils.errors import UserError

ADM_SPLIT = 5000  # pictures in a split of the ADM evaluator's Inception Score


def moments(sums: Any) -> Moments:
    """Mean and covariance of sums of features."""
    return Moments(sums.mean(), sums.covariance(), sums.count, dict(sums.about))


def frechet_distance(drawn: Moments, real: Moments) -> float:
    """Squared Frechet distance of two Gaussians (Heusel et al., 2017, equation 6), by torch-fidelity in float64.

    Raises UserError for features of two lengths, and for statistics of another variant, layer, network or weights.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    require_alike(drawn.about, real.about)
    if len(drawn.mu) != len(real.mu):
        raise UserError(f"features of {len(drawn.mu)} channels beside statistics of {len(real.mu)}; expected the same")
    both: list[dict[str, np.ndarray]] = [{"mu": side.mu, "sigma": side.sigma} for side in (drawn, real)]
    return float(fid_statistics_to_metric(*both, False)[KEY_METRIC_FID])


def check_samples(name: str, size: int, drawn: int, real: int | None, allow: Collection[str] = ()) -> list[str]:
    """Marks for a set with fewer pictures than features, whose distance says more of its size than of its pictures.

    A count that a file does not tell is marked too. Raises UserError for too few unless "few_samples" is allowed.
    """
    marks = []
    for side, count in (("drawn", drawn), ("real", real)):
        if count is None:
            marks.append(
                f"unknown_statistics: {name} is measured against statistics that do not say how they were made"
            )
        elif count < size:
            if "few_samples" not in allow:
                raise UserError(
                    f"{name}: {count} {side} pictures for {size} features; expected at least as many, "
                    "or add --allow few_samples, and the result is marked"
                )
            marks.append(f"few_samples: {name} of {count} {side} pictures with {size} features")
    return marks


def kernel_distance(
    drawn_ND: Tensor, real_MD: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> dict[str, float]:
    """KID, its mean and deviation over subsets, by torch-fidelity; raises UserError for sets below a subset's size."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    fewest = min(len(drawn_ND), len(real_MD))
    if not 2 <= subset_size <= fewest:
        raise UserError(f"KID subsets of {subset_size} of {fewest} pictures; expected 2 to {fewest}: --kid-subset-size")
    settings = {"kid_subsets": subsets, "kid_subset_size": subset_size, "rng_seed": seed, "verbose": False}
    found = kid_features_to_metric(drawn_ND, real_MD, **settings)
    return {"kid": found[KEY_METRIC_KID_MEAN], "kid_std": found[KEY_METRIC_KID_STD]}


def inception_score(logits_NV: Tensor, *, variant: str = "torch_fidelity", splits: int = 10) -> dict[str, float]:
    """Inception Score, mean and deviation over splits, by torch-fidelity.

    The library shuffles and makes 10 splits; `adm` keeps the order, in splits of about 5000 as the ADM evaluator does.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    adm = variant == "adm"
    splits = max(1, math.ceil(len(logits_NV) / ADM_SPLIT)) if adm else splits
    if len(logits_NV) < splits:
        raise UserError(f"Inception Score of {len(logits_NV)} pictures in {splits} splits; expected more pictures")
    found = isc_features_to_metric(logits_NV, splits, not adm)
    return {"isc": found[KEY_METRIC_ISC_MEAN], "isc_std": found[KEY_METRIC_ISC_STD]}


def precision_recall(
    drawn_ND: Tensor, real_MD: Tensor, *, neighbours: int = 3, batch_size: int = 10000
) -> dict[str, float]:
    """Improved precision and recall by torch-fidelity; sets above the batch size are compared part by part.

    Raises UserError for sets without enough neighbours.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    fewest = min(len(drawn_ND), len(real_MD))
    if not 1 <= neighbours < fewest:
        raise UserError(f"precision and recall with {neighbours} neighbours of {fewest} pictures; expected fewer")
    parts = max(len(drawn_ND), len(real_MD)) > batch_size  # else a table of all distances fits
    settings = {"prc_neighborhood": neighbours, "prc_batch_size": batch_size, "save_cpu_ram": parts, "verbose": False}
    return {name: float(value) for name, value in prc_features_to_metric(drawn_ND, real_MD, **settings).items()}


def monge_distance() -> None:
    """Raises UserError: MIND is measured through torch-fidelity, and that does not have it (0.4.0)."""
    import torch_fidelity

    version = torch_fidelity.__version__
    raise UserError(f"mind: torch-fidelity {version} does not have it; leave it out, or use kid, which it has")
