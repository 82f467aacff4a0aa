"""Processes held against cores and memory before any is started; nothing here starts one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.utils import capacity
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.capacity import GIB, READING, TRAINING, add_processes, asked_processes, check_processes
from vargpt_lightning.utils.errors import UserError

Tree = dict[str, Any]


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and 16 GiB; no process can be started."""
    monkeypatch.setattr(capacity, "cores", lambda: 2)
    monkeypatch.setattr(capacity, "free_memory", lambda: 16 * GIB)
    for name in ("WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def none_is_started(*arguments: object, **more: object) -> None:
        raise AssertionError("a process would be started")

    monkeypatch.setattr("subprocess.Popen.__init__", none_is_started)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", none_is_started)


def test_few_are_taken_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    check_processes(8, "trainer.devices", TRAINING)
    check_processes(16, "--processes", READING)
    for count, load in ((9, TRAINING), (1000, TRAINING), (17, READING)):
        with pytest.raises(UserError, match=rf"key={count}; expected at most \d+ .*2 cores.*16.0 GiB.*--oversubscribe"):
            check_processes(count, "key", load)
        check_processes(count, "key", load, forced=True)
    monkeypatch.setattr(capacity, "free_memory", lambda: 2 * GIB)
    with pytest.raises(UserError, match="at most 4 processes"):
        check_processes(5, "key", TRAINING)
    monkeypatch.setattr(capacity, "free_memory", lambda: 0)
    check_processes(2, "key", TRAINING)


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert capacity.cores() >= 1 and capacity.free_memory() > 0


def test_a_number_of_processes_is_one() -> None:
    parser = Parser()
    add_processes(parser, "some")
    for wrong in ("0", "-1", "9" * 5000):
        with pytest.raises(UserError, match=r"--processes: .*; expected a whole number from 1 to 100,000"):
            parser.parse_args(["--processes", wrong])
    assert asked_processes(parser.parse_args(["--processes", "900", "--oversubscribe"])) == 900


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "nowhere", "--processes", "1000"],
        ["data", "pack", "llava:x.json", "--out", "nowhere", "--processes", "1000"],
        ["data", "tokenize", "nowhere", "--tokenizer", "x", "--processes", "1000"],
        ["sweep", "nowhere.yaml", "--workers", "1000"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_refuses_too_many(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"{words[-2]}=1000; expected at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--trainer.devices", "1000"], "trainer.devices=1000; expected at most 8"),
        (["--trainer.devices=9"], "trainer.devices=9; expected at most 8"),
        (["--data.workers", "1000"], "data.workers=1000; expected at most 16"),
        (["--trainer.devices", "4", "--data.workers", "5"], "data.workers=5 of 4 training processes together=20; "),
        (["--trainer.num_nodes", "2"], "trainer.num_nodes=2: several machines want torchrun or srun"),
        (["--trainer.num_nodes", "2", "--trainer.devices", "2"], "trainer.num_nodes=2: several machines"),
        (["--trainer.num_nodes", "2", "--trainer.strategy", "single"], "trainer.num_nodes=2: several machines"),
    ],
)
def test_fit_refuses_before_it_writes(
    more: list[str], named: str, tiny_experiment: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_experiment["run"]["root"] = str(tmp_path / "runs")
    file = write_experiment(tmp_path / "tiny.yaml", tiny_experiment)
    assert main(["fit", "-c", str(file), *more]) == 2
    said = capsys.readouterr().err
    assert named in said and (("--trainer.oversubscribe true" in said) or "num_nodes" in named)
    assert not (tmp_path / "runs").exists()
