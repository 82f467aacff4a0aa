"""VQAScore equals the model's own first probabilities; PickScore its formula; packages that are missing are named."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.evaluation.pictures import write_transformers_clip
from tests.evaluation.systems.test_openai_endpoint import Service, endpoint, said, service
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, UnfinishedError
from vargpt_lightning.evaluation.metrics import PairScore
from vargpt_lightning.evaluation.systems.pair_scorers import HPSv3Scorer, ImageRewardScorer, PickScorer, VQAScorer
from vargpt_lightning.evaluation.systems.transformers_model import TransformersModel
from vargpt_lightning.utils.errors import UserError

assert service  # a fixture
PICTURES = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
TEXTS = ["a red cat", "a green dog by the sea", "z"]


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_vqa_score_is_the_first_probability_of_yes(folders: Callable[[str], Path], kind: str) -> None:
    system = TransformersModel(folders(kind))
    scorer = VQAScorer(system)
    found = scorer.scores(PICTURES, TEXTS)
    token = system.processor.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    for picture, text, value in zip(PICTURES, TEXTS, found, strict=True):
        request = AnswerRequest("0", f'Does this figure show "{text}"? Please answer yes or no.', (picture,))
        with torch.inference_mode():
            logits = system.model(**system._processed([request])).logits[0, -1].float()
        assert value == pytest.approx(logits.softmax(dim=-1)[token].item(), rel=1e-4)
    assert len(set(found)) == 3 and scorer.settings["answer"] == "Yes"


def test_an_endpoint_tells_probabilities(service: Service) -> None:
    def script(question: str, attempt: int) -> Any:
        likely = [{"token": "Yes", "logprob": math.log(0.5)}, {"token": " Yes", "logprob": math.log(0.25)}]
        likely = likely if "cat" in question else [{"token": "No", "logprob": 0.0}]
        choice = said("Yes")["choices"][0] | {"logprobs": {"content": [{"token": "Yes", "top_logprobs": likely}]}}
        return {"choices": [choice]}

    service.script = script
    scorer = VQAScorer(endpoint(service))
    assert scorer.scores(PICTURES, TEXTS) == pytest.approx([0.75, 0, 0])
    assert service.seen[0]["logprobs"] is True and service.seen[0]["max_tokens"] == 1
    service.script = lambda question, attempt: said("Yes")
    with pytest.raises(UnfinishedError, match="tells no probabilities"):
        scorer.scores(PICTURES[:1], TEXTS[:1])


def test_who_tells_no_probabilities_is_refused() -> None:
    with pytest.raises(UserError, match="vqa_score: object tells no probabilities"):
        VQAScorer(object())


def test_pickscore_is_the_scaled_cosine(tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = write_transformers_clip(tmp_path / "clip")
    scorer = PickScorer(str(folder))
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        both: Any = processor(text=TEXTS, images=PICTURES, return_tensors="pt", padding="max_length", truncation=True)
        expected = model(**both).logits_per_image.diagonal()
    assert scorer.scores(PICTURES, TEXTS) == pytest.approx(expected.tolist(), abs=1e-4)
    metric = PairScore(scorer)
    pixels = torch.stack([torch.tensor(picture.getpixel((0, 0))) for picture in PICTURES])[:, :, None, None]
    metric.update(pixels.byte().expand(3, 3, 20, 20), TEXTS)
    found = metric.compute_all()
    assert found["pickscore"] == pytest.approx(expected.mean().item(), abs=1e-4) and found["pickscore_n"] == 3
    assert found["pickscore_error"] == pytest.approx(expected.std().item() / math.sqrt(3), abs=1e-4)
    assert metric.compute().item() == found["pickscore"]
    with pytest.raises(UserError, match="3 pictures with 1 texts"):
        metric.update(pixels.byte(), ["a"])


@pytest.mark.parametrize(("scorer", "package"), [(ImageRewardScorer, "image-reward"), (HPSv3Scorer, "hpsv3")])
def test_a_package_that_is_missing_is_named(scorer: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ImageReward" if package == "image-reward" else package
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"the package {package} is not installed|does not work here"):
        scorer()


def test_packages_are_asked_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reward:
        def score(self, text: str, picture: Image.Image) -> float:
            return len(text) + float(picture.size[0])

    class Inferencer:
        def __init__(self, device: str) -> None:
            self.device = device

        def reward(self, image_paths: Sequence[Any], prompts: Sequence[str]) -> torch.Tensor:
            return torch.tensor([[float(len(text)), 9.0] for text in prompts])

    monkeypatch.setitem(sys.modules, "ImageReward", types.SimpleNamespace(load=lambda name, device: Reward()))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "hpsv3", types.SimpleNamespace(HPSv3RewardInferencer=Inferencer))  # type: ignore[arg-type]
    assert ImageRewardScorer().scores(PICTURES, TEXTS) == [29, 42, 21]
    assert HPSv3Scorer().scores(PICTURES, TEXTS) == [9, 22, 1]

    def old(name: str, device: str) -> Any:
        raise ImportError("cannot import name 'apply_chunking_to_forward'")

    monkeypatch.setitem(sys.modules, "ImageReward", types.SimpleNamespace(load=old))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"image-reward does not work here \(.*transformers .*apply_chunking"):
        ImageRewardScorer()
