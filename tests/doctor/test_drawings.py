"""Settings that act are found to, and each planted fault is found by the check that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.doctor.subject import fresh_subject
from vargpt_lightning.doctor.drawings import Subject, drawing_checks
from vargpt_lightning.doctor.findings import Finding, examine
from vargpt_lightning.doctor.subjects import subject_of
from vargpt_lightning.inference import load as loading
from vargpt_lightning.models.generation import generate as generation
from vargpt_lightning.models.generation.row_sampling import RowRules
from vargpt_lightning.utils.errors import UserError


def found(subject: Subject) -> dict[str, Finding]:
    return {finding.name: finding for finding in map(examine, drawing_checks(subject))}


def failed(subject: Subject) -> dict[str, str]:
    return {name: each.said for name, each in found(subject).items() if each.status == "failed"}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return fresh_subject()


def test_nothing_is_wrong_with_a_model_of_ours(subject: Subject, finished_run: Path) -> None:
    for each in (subject, subject_of(finished_run, torch.device("cpu"))):
        assert {name: finding.said for name, finding in found(each).items() if finding.status != "ok"} == {}


def test_nothing_is_wrong_with_it_in_16_bits(finished_run: Path) -> None:
    halved = subject_of(finished_run, torch.device("cpu"))
    halved.model.bfloat16()
    halved.dtype = torch.bfloat16
    assert failed(halved) == {}


def test_guidance_that_is_not_applied_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowRules, "guide", lambda self, cond_RlV, uncond_GlV, k, K: cond_RlV.float())
    wrong = failed(subject)
    assert wrong.keys() == {"with and without guidance"} and "guidance changes nothing" in wrong.popitem()[1]


def test_guidance_of_another_strength_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    original = RowRules.guide

    def square(self: RowRules, cond: Any, uncond: Any, k: int, K: int) -> torch.Tensor:
        guided = original(self, cond, uncond, k, K)
        return cond + (guided - cond) * max(own.cfg for own in self.settings)

    monkeypatch.setattr(RowRules, "guide", square)
    assert "twice as far" in failed(subject)["with and without guidance"]


def test_a_prompt_that_is_ignored_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "context_of", lambda model, prompt, index: [1])
    wrong = failed(subject)
    assert wrong.keys() == {"with and without the prompt"} and "changes nothing" in wrong.popitem()[1]


@pytest.mark.parametrize("stream", [lambda seed, row: f"{row}", lambda seed, row: f"{seed}"])
def test_a_seed_that_is_ignored_is_found(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, stream: Callable[[int, int], str]
) -> None:
    original = generation.stream
    monkeypatch.setattr(generation, "stream", lambda seed, row: original(int(stream(seed, row)), 0))
    assert failed(subject).keys() == {"another seed"}


def test_a_seed_that_means_nothing_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "stream", lambda seed, row: torch.default_generator)
    wrong = failed(subject)
    assert "the same seed twice" in wrong and "expected none" in wrong["the same seed twice"]


def test_weights_of_another_type_are_found(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loading.load_weights

    def halve(model: torch.nn.Module, file: Path) -> None:
        original(model, file)
        model.bfloat16()

    monkeypatch.setattr(loading, "load_weights", halve)
    said = failed(subject_of(finished_run, torch.device("cpu")))["types of weights"]
    assert said.startswith("weights are bfloat16, expected float32, such as ")


def test_a_buffer_that_must_stay_in_32_bits_is_looked_at() -> None:
    subject = fresh_subject()
    rotary = subject.model.language_model.model.rotary_emb
    rotary._buffers["inv_freq"] = rotary.inv_freq.bfloat16()
    assert "inv_freq is bfloat16, expected float32" in failed(subject)["types of weights"]


def test_a_row_that_sees_its_neighbours_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    original = RowRules.guide

    def mix(self: RowRules, *arguments: Any) -> torch.Tensor:
        guided = original(self, *arguments)
        return guided + 0.01 * guided.mean(dim=0, keepdim=True) * (len(guided) - 1)

    monkeypatch.setattr(RowRules, "guide", mix)
    assert "in another batch" in failed(subject)["another batch"]


def test_filters_that_are_not_applied_are_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.models.generation import row_sampling

    monkeypatch.setattr(row_sampling, "filter_rows", lambda logits, top_k, top_p: logits)
    assert "top_k 1: a code was drawn" in failed(subject)["top-k and temperature"]


def test_an_experiment_that_is_too_large_to_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.doctor import subjects

    monkeypatch.setattr(subjects, "MOST", 1000)
    with pytest.raises(UserError, match=r"the model has 0\.0 billion weights"):
        fresh_subject()
