"""How many processes an experiment starts; nothing here starts one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vargpt_lightning.training.experiment_run import check_readers, others_named, processes_here
from vargpt_lightning.utils import capacity
from vargpt_lightning.utils.capacity import GIB
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and 16 GiB, and nobody who has started this process among others."""
    monkeypatch.setattr(capacity, "cores", lambda: 2)
    monkeypatch.setattr(capacity, "free_memory", lambda: 16 * GIB)
    for name in ("WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def machines(**settings: Any) -> Any:
    """An experiment's trainer with these settings, as far as the number of processes asks for it."""
    trainer = {"num_nodes": 1, "strategy": "auto", "devices": 1, "accelerator": "cpu", "oversubscribe": False}
    return SimpleNamespace(trainer=SimpleNamespace(**trainer | settings), data=SimpleNamespace(workers=0))


def test_several_machines_want_somebody_who_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")  # left behind: nobody says that there are others
    with pytest.raises(UserError, match=r"trainer\.num_nodes=2"):
        processes_here(machines(num_nodes=2))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes_here(machines(num_nodes=2)) == 1


def test_readers_of_all_processes_of_the_machine_count(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = machines()
    experiment.data.workers = 3
    check_readers(experiment, 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(UserError, match=r"data\.workers=3 of 8 training processes together=24"):
        check_readers(experiment, 1)
    experiment.trainer.oversubscribe = True
    check_readers(experiment, 1)


def test_a_process_that_is_gone_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"another process of this run has ended \(Broken pipe\)"), others_named():
        raise RuntimeError("gloo: Broken pipe")
    with pytest.raises(RuntimeError, match="something else"), others_named():
        raise RuntimeError("something else")
