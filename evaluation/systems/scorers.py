"""Scorers of pictures by their names, for parts of the sampler that choose. No torch until one is found.

pickscore, image_reward, hpsv3       the reward models of `pair_scorers`; NAME:PATH for other weights
identification:FOLDER                how much nearer a picture is to the real one that is asked for than to others
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.utils.errors import UserError, hint, near_folder

if TYPE_CHECKING:
    from PIL import Image

    from vargpt_lightning.inference.sources import Scorer

NAMES = ("pickscore", "image_reward", "hpsv3", "identification")


def find_scorer(name: str) -> Scorer:
    """Return a scorer by its name.

    Raises:
        UserError: there is none of this name, or it cannot be made: packages, weights or pictures are missing.
    """
    kind, _, where = name.partition(":")
    if kind not in NAMES:
        raise UserError(f"scorer: {kind!r}; {hint(kind, NAMES)}")
    if kind == "identification":
        if not where:
            raise UserError(f"scorer: got {name!r}, expected identification:FOLDER, the evaluation of a run")
        return _identification(Path(where))
    from vargpt_lightning.evaluation.systems.pair_scorers import OPEN

    return (OPEN[kind](where) if where else OPEN[kind]()).scores


def _identification(folder: Path) -> Scorer:
    """The cosine of features to the real picture that is asked for, less that to the nearest other one, -2 to 2.

    A request asks for the picture with the longest name that it has in it; one without scores 0.
    """
    from vargpt_lightning.evaluation.base.files import open_picture
    from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures
    from vargpt_lightning.evaluation.metrics.identification import cosine
    from vargpt_lightning.utils.files import read_jsonl

    rows = read_jsonl(folder / "pictures.jsonl")
    if len(rows) < 2:
        raise UserError(
            f"scorer: {folder} holds {len(rows)} real pictures; expected the evaluation folder of a run, with several"
            + near_folder(folder)
        )
    features = EfficientNetFeatures()
    real_NC = features([open_picture(folder, row) for row in rows])
    asked = asked_for([str(row.get("name") or row["id"]) for row in rows])

    def score(pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[float]:
        near_MN = cosine(features(list(pictures)), real_NC)
        found = []
        for near_N, request in zip(near_MN, requests, strict=True):
            if (wanted := asked(request)) is None:
                found.append(0.0)
                continue
            own = float(near_N[wanted])
            near_N[wanted] = -1.0
            found.append(own - float(near_N.max()))
        return found

    return score


def asked_for(names: Sequence[str]) -> Callable[[str], int | None]:
    """Return what finds the place of the longest of some names in a request, None where none is in it."""
    longest = sorted(range(len(names)), key=lambda place: -len(names[place]))
    words = [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in names]
    return lambda request: next((place for place in longest if words[place].search(request)), None)
