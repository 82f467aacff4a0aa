"""Processes exchange tensors, and what goes wrong in one of them is told."""

from __future__ import annotations

import sys

import pytest

from vargpt_lightning.doctor import groups
from vargpt_lightning.doctor.findings import Fault


def test_two_processes_add_up_their_numbers() -> None:
    assert groups.exchange("gloo") == "2 processes added up their numbers"


def test_a_process_that_fails_or_hangs_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "run_processes", lambda command, count: ["sum of ranks: 1", "RuntimeError: no route"])
    with pytest.raises(Fault, match="gloo: RuntimeError: no route; expected sum of ranks: 1"):
        groups.exchange("gloo")
    monkeypatch.undo()
    with pytest.raises(Fault, match="said nothing"):
        groups.run_processes([sys.executable, "-c", "import time; time.sleep(60)"], 1, seconds=0.1)
