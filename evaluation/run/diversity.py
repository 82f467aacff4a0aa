"""How much drawings of one request differ between seeds, by the distance of their features.

Shapes: n drawings of one request, C channels of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.evaluation.base.benchmark import mean_interval
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.features.efficientnet import FeatureFunction
from vargpt_lightning.evaluation.metrics.identification import cosine

Row = Mapping[str, Any]


def diversity(out: Path, drawings: Sequence[Row], repeats: Sequence[Row], features: FeatureFunction) -> dict[str, Any]:
    """Return the mean distance between drawings of one request, over requests; {} where none was drawn twice.

    Args:
        out: the evaluation's folder.
        drawings: what was drawn once of each request.
        repeats: what was drawn of some of them with other seeds; `of` is the request's id.
        features: pictures to features; the distance of two is 1 - cosine.

    Returns:
        "requests" and "drawings" of them; "distance" with its 95 % interval over requests; "between", the distance
        between drawings of different requests, which it can be read beside.
    """
    first = {row["id"]: row for row in drawings}
    groups: dict[str, list[Row]] = {}
    for row in repeats:
        if row.get("files") and first.get(row["of"], {}).get("files"):
            groups.setdefault(row["of"], [first[row["of"]]]).append(row)
    if not groups:
        return {}
    rows = [row for group in groups.values() for row in group]
    own = iter(features([open_picture(out, row) for row in rows]).split([len(group) for group in groups.values()]))
    by_request = [next(own) for _ in groups]
    found = [_mean_distance(x_nC) for x_nC in by_request]
    low, high = mean_interval(found)
    between = _mean_distance(torch.stack([x_nC[0] for x_nC in by_request])) if len(by_request) > 1 else None
    figures = {"requests": len(groups), "drawings": len(rows), "distance": sum(found) / len(found)}
    return {**figures, "low": low, "high": high, "between": between}


def _mean_distance(x_nC: Tensor) -> float:
    """The mean of 1 - cosine over all pairs of different rows."""
    cosine_nn = cosine(x_nC, x_nC)
    n = len(x_nC)
    return 1 - float((cosine_nn.sum() - cosine_nn.trace()) / (n * (n - 1)))
