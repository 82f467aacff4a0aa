"""The job scripts queue a stopped job again, and no other; `srun` and `scontrol` are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "experiments" / "slurm").glob("*.sbatch"))


@pytest.mark.parametrize("code", [0, 2, 143])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_stopped_job_is_queued_again(script: Path, code: int, tmp_path: Path) -> None:
    for name, end in (("srun", f"exit {code}"), ("scontrol", "")):
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/said\n{end}\n')
        (tmp_path / name).chmod(0o755)
    nodes = "8" if "eight" in script.name else "1"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NNODES": nodes}
    command = ["bash", str(script), "some file.yaml", "--seed", "1"]
    assert subprocess.run(command, env=environment, timeout=30).returncode == code
    started, *after = (tmp_path / "said").read_text().splitlines()
    assert started.startswith("srun --kill-on-bad-exit=1 vargpt fit -c some file.yaml --seed 1 --trainer.devices 8")
    assert f"--trainer.num_nodes {nodes}" in started
    assert after == (["scontrol requeue 77"] if code == 143 else [])


def test_both_scripts_are_there() -> None:
    assert [script.stem for script in SCRIPTS] == ["eight_nodes", "one_node"]
    for script in SCRIPTS:
        text = script.read_text()
        assert "#SBATCH --signal=TERM@300" in text and "#SBATCH --requeue" in text
