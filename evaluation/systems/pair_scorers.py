"""Who scores drawings with their words: VQAScore by any system that tells probabilities, and three reward models.

ImageReward and HPSv3 are used through their own packages, where these are installed; PickScore is a CLIP of
transformers.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from PIL import Image

from vargpt_lightning.evaluation.base.pairs import HasProbability, PairScorer
from vargpt_lightning.evaluation.base.protocols import AnswerRequest
from vargpt_lightning.evaluation.features.clip import transformers_clip
from vargpt_lightning.evaluation.harness.select import describe
from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores
from vargpt_lightning.runs.provenance import package_versions
from vargpt_lightning.utils.errors import UserError

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"


class VQAScorer:
    """VQAScore: how likely a system is to begin with Yes when it is asked whether a picture shows a text, 0 to 1.

    Args:
        system: a run, a transformers model, or an endpoint that tells probabilities.
        question: with {} for the text.

    Raises:
        UserError: the system tells no probabilities.

    Source: Lin et al., Evaluating text-to-visual generation with image-to-text generation, arXiv 2404.01291.
    """

    kind = "vqa_score"

    def __init__(self, system: Any, question: str = QUESTION) -> None:
        if not isinstance(system, HasProbability):
            name = getattr(system, "name", type(system).__name__)
            raise UserError(
                f"vqa_score: {name} tells no probabilities; expected a run, a transformers model or an endpoint"
            )
        self.system, self.question = system, question

    @property
    def settings(self) -> dict[str, Any]:
        """The system, and what it is asked."""
        return {**describe(self.system), "question": self.question, "answer": ANSWER}

    def scores(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """The probability of Yes for each pair."""
        requests = [
            AnswerRequest(f"pair {place}", self.question.replace("{}", text), (picture,), 1)
            for place, (picture, text) in enumerate(zip(pictures, texts, strict=True))
        ]
        return list(self.system.probability(requests, ANSWER))


class PickScorer:
    """PickScore: the cosine of picture and text times the model's own scale, by a CLIP that learned what people pick.

    Args:
        model: a directory or a hub id.

    Source: Kirstain et al., Pick-a-Pic, arXiv 2305.01569.
    """

    kind = "pickscore"

    def __init__(self, model: str = "yuvalkirstain/PickScore_v1", device: str = "cpu") -> None:
        self.clip = transformers_clip(model, device)
        self.scale = float(self.clip.network.logit_scale.detach().exp())

    @property
    def settings(self) -> dict[str, Any]:
        """The model, and its scale."""
        return {**self.clip.settings, "scale": self.scale}

    def scores(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Scale times cosine of each pair."""
        embedded, _ = self.clip.texts(texts)
        found: list[float] = (cosine_scores(self.clip.pictures(pictures), embedded) / 100 * self.scale).tolist()
        return found


class ImageRewardScorer:
    """ImageReward through the package image-reward.

    Source: Xu et al., ImageReward, arXiv 2304.05977.
    """

    kind = "image_reward"

    def __init__(self, model: str = "ImageReward-v1.0", device: str = "cpu") -> None:
        package = _package("ImageReward", "image-reward")
        self.name, self.model = model, _built("image-reward", lambda: package.load(model, device=device))

    @property
    def settings(self) -> dict[str, Any]:
        """The model and the package's version."""
        return {"model": self.name, **package_versions(("image-reward", "transformers"))}

    @torch.inference_mode()
    def scores(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """The reward of each pair."""
        return [float(self.model.score(text, picture)) for picture, text in zip(pictures, texts, strict=True)]


class HPSv3Scorer:
    """HPSv3 through the package hpsv3: the mean of the reward that it predicts.

    Args:
        model: a checkpoint file; empty lets the package fetch its own.

    Source: Ma et al., HPSv3, arXiv 2508.03789.
    """

    kind = "hpsv3"

    def __init__(self, model: str = "", device: str = "cpu") -> None:
        package = _package("hpsv3", "hpsv3")
        more = {"checkpoint_path": model} if model else {}
        self.name = model or "MizzenAI/HPSv3"
        self.model = _built("hpsv3", lambda: package.HPSv3RewardInferencer(device=device, **more))

    @property
    def settings(self) -> dict[str, Any]:
        """The model and the package's version."""
        return {"model": self.name, **package_versions(("hpsv3", "transformers"))}

    @torch.inference_mode()
    def scores(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """The mean of each pair's reward; the package also predicts its spread."""
        rewards = self.model.reward(image_paths=list(pictures), prompts=list(texts))
        return [float(reward[0]) for reward in rewards]


OPEN: dict[str, Callable[..., PairScorer]] = {
    "pickscore": PickScorer,
    "image_reward": ImageRewardScorer,
    "hpsv3": HPSv3Scorer,
}


def _package(module: str, name: str) -> Any:
    """A package of others. Raises UserError where it is not installed or does not import here."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == module:
            raise UserError(f"{module}: the package {name} is not installed; expected `pip install {name}`") from error
        raise _unfit(name, error) from error
    except (ImportError, AttributeError) as error:
        raise _unfit(name, error) from error


def _built(name: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (ImportError, AttributeError, TypeError, OSError, RuntimeError) as error:
        raise _unfit(name, error) from error


def _unfit(name: str, error: Exception) -> UserError:
    versions = package_versions((name, "transformers", "torch"))
    there = ", ".join(f"{key} {value}" for key, value in versions.items())
    return UserError(f"{name} does not work here ({there}): {' '.join(str(error).split())[:200]}")
