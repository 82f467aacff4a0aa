"""`vargpt doctor`: lines, the report, the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning.cli import main
from vargpt_lightning.doctor import groups, losses
from vargpt_lightning.models.generation.row_sampling import RowRules


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks that start processes, which have tests of their own."""
    monkeypatch.setattr(groups, "group_checks", lambda: iter(()))
    monkeypatch.setattr(losses, "loss_checks", lambda device: iter(()))


def test_a_machine_with_nothing_wrong(finished_run: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["doctor", str(finished_run), "--device", "cpu", "--out", str(tmp_path / "doctor.md")]) == 0
    said = capsys.readouterr()
    report = (tmp_path / "doctor.md").read_text()
    assert "checks are fine" in said.out and "failed" not in said.out and "looking at" in said.err
    assert "| drawings | another seed | ok | " in report and "FAILED" not in report
    assert f"`vargpt doctor {finished_run} --device cpu" in report


def test_a_fault_is_named_and_the_exit_code_is_1(
    finished_run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowRules, "guide", lambda self, cond_RlV, uncond_GlV, k, K: cond_RlV.float())
    assert main(["doctor", str(finished_run), "--device", "cpu", "--out", str(tmp_path / "doctor.md")]) == 1
    said = capsys.readouterr()
    assert "vargpt doctor: drawings: with and without guidance: guidance changes nothing" in said.err
    assert "1 failed: drawings: with and without guidance" in said.out
    assert "- **drawings: with and without guidance**: guidance changes nothing" in (tmp_path / "doctor.md").read_text()


def test_what_cannot_be_loaded_is_a_fault_of_it_alone(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "wrong.yaml").write_text("stages: 3\n")
    assert main(["doctor", str(tmp_path / "wrong.yaml"), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "failed    drawings: loading" in said.out and "SDPA as it is called" in said.out
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert "there is no such run or experiment" in capsys.readouterr().err


def test_a_torch_that_cannot_be_imported_is_told(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vargpt_lightning.doctor.kernels", raising=False)
    monkeypatch.setitem(sys.modules, "torch.nn.attention", None)
    assert main(["doctor", "--device", "cpu"]) == 1
    assert "machine: imports: torch and what stands on it cannot be imported" in capsys.readouterr().err
