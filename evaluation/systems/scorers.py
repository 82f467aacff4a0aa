"""Scorers of pictures by their names: for parts of the sampler, pairs, rewards. No torch until one is found.

composition                          the judge of scenes: the share of what a request says that is right
identification:FOLDER                how much nearer a picture is to the real one that is asked for than to others
clip, clip:DIR, clip:MODEL:WEIGHTS   100 x cosine of picture and request, by open_clip or a folder of transformers
vqa_score:MODEL                      how likely a model is to say that a picture shows a request: openai:URL#NAME, or a
                                     transformers model
pickscore, image_reward, hpsv3       the reward models of `pair_scorers`; NAME:PATH for other weights
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError, hint, near_folder

if TYPE_CHECKING:
    from PIL import Image

    from vargpt_lightning.inference.sources import Scorer

ENDPOINT = "openai:"
MARGINS = {
    "composition": 0.0,
    "identification": 0.02,
    "clip": 1.0,
    "vqa_score": 0.1,
    "pickscore": 0.3,
    "image_reward": 0.3,
    "hpsv3": 0.3,
}
"""Names, and by how much two scores have to differ before a pair of pictures is told apart."""
NAMES = tuple(MARGINS)


def find_scorer(name: str) -> Scorer:
    """Return a scorer by its name.

    Raises:
        UserError: there is none of this name, or it cannot be made: packages, weights or pictures are missing.
    """
    kind, where = checked_name(name)
    if kind == "composition":
        from vargpt_lightning.evaluation.composition.scoring import scene_scores

        return scene_scores
    if kind == "identification":
        return _identification(Path(where))
    if kind == "clip":
        return _clip(where)
    from vargpt_lightning.evaluation.systems.pair_scorers import OPEN, VQAScorer

    if kind == VQAScorer.kind:
        return VQAScorer(_asked_model(where)).scores
    return (OPEN[kind](where) if where else OPEN[kind]()).scores


def checked_name(name: str) -> tuple[str, str]:
    """Return a scorer's kind and what stands behind it; nothing is made.

    Raises:
        UserError: there is none of this kind, or what it needs is not named.
    """
    kind, _, where = name.partition(":")
    if kind not in NAMES:
        raise UserError(f"scorer: {kind!r}; {hint(kind, NAMES)}")
    if kind == "composition" and where:
        raise UserError(f"scorer: got {name!r}, expected composition by itself")
    if kind == "identification" and not where:
        raise UserError(f"scorer: got {name!r}, expected identification:FOLDER, the evaluation of a run")
    if kind == "vqa_score" and not where:
        raise UserError(f"scorer: got {name!r}, expected vqa_score:MODEL, such as vqa_score:openai:http://HOST/v1#NAME")
    return kind, where


def _clip(where: str) -> Scorer:
    """100 x cosine of each picture with its request."""
    from vargpt_lightning.evaluation.features.clip import MODEL, WEIGHTS, open_clip_model, transformers_clip
    from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores

    network, colon, weights = where.partition(":")
    of_transformers = where and not colon
    model = transformers_clip(where) if of_transformers else open_clip_model(network or MODEL, weights or WEIGHTS)

    def score(pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[float]:
        found: list[float] = cosine_scores(model.pictures(pictures), model.texts(requests)[0]).tolist()
        return found

    return score


def _asked_model(where: str) -> Any:
    """What VQAScore asks: an endpoint, or a transformers model."""
    if where.startswith(ENDPOINT):
        from vargpt_lightning.evaluation.systems.openai_endpoint import OpenAIEndpoint

        url, _, model = where.removeprefix(ENDPOINT).partition("#")
        return OpenAIEndpoint(url, model)
    from vargpt_lightning.evaluation.systems.transformers_model import TransformersModel

    return TransformersModel(where)


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
