"""Versions against ranges, and what a machine has too little of."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vargpt_lightning.doctor import machine
from vargpt_lightning.doctor.findings import Fault, Finding, examine


def found(folder: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in map(examine, machine.machine_checks(folder))}


def test_nothing_is_wrong_with_this_machine(tmp_path: Path) -> None:
    each = found(tmp_path)
    assert {name: finding.said for name, finding in each.items() if finding.status == "failed"} == {}
    assert "torch" in each["versions"].said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "fine"),
    [("2.8", True), ("2.8.0+cu130", True), ("2.14.9", True), ("2.15.0", False), ("2.7.9", False), ("3", False)],
)
def test_ranges_are_read(version: str, fine: bool) -> None:
    assert machine.fits(version, ">=2.8,<2.15") is fine


def test_versions_are_those_of_this_python() -> None:
    lines = (
        'numpy==2.4.6 ; python_version == "3.11"\n'
        'numpy==2.5.5 ; python_version == "3.12" or python_version == "3.13"\n'
        "torch==2.14.1\n"
    )
    assert machine.pins(lines, "3.11") == {"numpy": "2.4.6", "torch": "2.14.1"}
    assert machine.pins(lines, "3.13") == {"numpy": "2.5.5", "torch": "2.14.1"}


def test_all_ranges_of_this_project_can_be_read() -> None:
    names = {name for name, range_, _ in machine.requirements() if isinstance(machine.fits("1.0", range_), bool)}
    assert {"torch", "lightning", "bitsandbytes", "jsonargparse"} <= names
    needed = {name for name, _, needed in machine.requirements() if needed}
    assert "torch" in needed and "bitsandbytes" not in needed
    with pytest.raises(ValueError, match="expected >= and <"):
        machine.fits("1.0", "~=1.0")


def test_a_version_out_of_its_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "lightning" else original(name))
    with pytest.raises(Fault, match=r"lightning 99\.0, expected <2\.7,>=2\.6\.6|lightning 99\.0, expected >=2\.6\.6"):
        machine.versions()


def test_little_memory_disk_and_shared_memory_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 25))
    each: dict[str, Any] = found(tmp_path)
    assert "expected 2 GiB free or more" in each["processor and memory"].said
    assert "expected 2 GiB free or more" in each["disk"].said and "--ipc=host" in each["shared memory"].said
