"""KID: the kernel distance of two sets of pictures (Binkowski et al., 2018), by torch-fidelity's function.

Shapes: N drawn pictures, M real pictures, D feature channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vargpt_lightning.evaluation.metrics.base import Features, TwoSets, ValueRange
from vargpt_lightning.evaluation.metrics.networks import FidelityFeatures
from vargpt_lightning.utils.errors import UserError


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


class KernelInceptionDistance(TwoSets):
    """KID: the squared MMD of drawn and real pictures' features with a cubic kernel, the mean over random subsets.

    No unit; unbiased, so that it may come out below 0 where sets are alike. `update` takes pictures (B, 3, H, W), uint8
    or floats in `value_range`, and whether they are real; the states are their features, float32. `compute_all` has the
    deviation over subsets too, as `kid_std`.

    Args:
        features: a network (see `Features`); None is Inception's last pool, 2048 channels, as torch-fidelity has it.
        subsets: how many are drawn.
        subset_size: pictures in each, of either side; no set may have fewer.
        seed: of the drawing.
        value_range: what black and white are in pictures of floats.
        settings: torchmetrics' own.

    Source: Binkowski et al., Demystifying MMD GANs, 2018.
    """

    higher_is_better = False
    headline = "kid"

    def __init__(
        self,
        features: Features | None = None,
        *,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
        value_range: ValueRange = (0.0, 1.0),
        **settings: Any,
    ) -> None:
        super().__init__(features or FidelityFeatures(), value_range, **settings)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def _values(self) -> dict[str, float]:
        return self.both(kernel_distance, subsets=self.subsets, subset_size=self.subset_size, seed=self.seed)
