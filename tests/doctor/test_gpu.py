"""What only a GPU can run: the checks of `vargpt doctor --full` on it, a test each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.doctor.subject import fresh_subject
from vargpt_lightning.doctor.drawings import Subject, drawing_checks
from vargpt_lightning.doctor.findings import Check, NotHere
from vargpt_lightning.doctor.full import full_checks
from vargpt_lightning.doctor.groups import group_checks
from vargpt_lightning.doctor.kernels import kernel_checks
from vargpt_lightning.doctor.losses import loss_checks

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
GPU = "cuda"
CHECKS = [*kernel_checks(torch.device(GPU)), *group_checks(), *loss_checks(GPU), *full_checks(GPU)]


def name(check: Check) -> str:
    return f"{check.part}: {check.name}"


def run(check: Callable[[], Any]) -> None:
    """Run a check; what this GPU does not have (cuDNN's attention, bfloat16) is no fault of it."""
    try:
        check()
    except NotHere as reason:
        assert str(reason)


@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_the_gpu_does_as_it_should(check: Check) -> None:
    run(check.run)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return fresh_subject(GPU)


@pytest.mark.parametrize("number", range(7))
def test_settings_act_on_the_gpu(subject: Subject, number: int) -> None:
    run(list(drawing_checks(subject))[number].run)


def test_drawings_have_the_logits_that_a_processor_gives(subject: Subject) -> None:
    (here,), (there,) = subject.draw([(0, 0)]), fresh_subject().draw([(0, 0)])
    first = subject.model.schedule.slices[0]
    torch.testing.assert_close(here.logits[first], there.logits[first], rtol=1e-3, atol=1e-3)
