"""Checkpoints are whole or not there, and saved between optimizer steps."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from vargpt_lightning.callbacks import checkpoint_io
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint, remove_leftovers, steps_taken
from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.utils.errors import UserError

SMALL = {"global_step": 3, "weights": torch.ones(4)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a checkpoint after three steps."""
    target = tmp_path / "stage" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(SMALL, target)
    return target


def only_files(path: Path, *names: str) -> bool:
    return sorted(file.name for file in path.parent.iterdir()) == sorted(names)


def test_what_is_saved_is_loaded(path: Path) -> None:
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 3 and torch.equal(loaded["weights"], torch.ones(4))
    assert only_files(path, "last.ckpt")


def test_a_checkpoint_that_runs_code_is_refused(path: Path) -> None:
    torch.save({"global_step": 1, "code": Path}, path)
    with pytest.raises(UserError, match="is broken, or not a checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path)


def raise_by_hand(checkpoint: Any, file: Any) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def raise_as_torch_does(checkpoint: Any, file: Any) -> None:
    """torch's zip writer hides the system's error behind one of its own."""
    try:
        raise_by_hand(checkpoint, file)
    except OSError:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662")  # noqa: B904


@pytest.mark.parametrize("write", [raise_by_hand, raise_as_torch_does])
def test_a_full_disk_leaves_the_checkpoint_before_and_no_rest(
    write: Callable[..., None], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_io.torch, "save", write)
    with pytest.raises(UserError) as error:
        AtomicCheckpointIO().save_checkpoint({"global_step": 4}, path)
    monkeypatch.undo()
    assert f"{path}: the checkpoint cannot be written (No space left on device)" in str(error.value)
    assert "the checkpoint before it is kept" in str(error.value)
    assert steps_taken(path) == 3
    assert only_files(path, "last.ckpt")


def test_the_first_checkpoint_of_a_full_disk_says_that_there_is_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.unlink()
    monkeypatch.setattr(checkpoint_io.torch, "save", raise_by_hand)
    with pytest.raises(UserError, match="there is none before it"):
        AtomicCheckpointIO().save_checkpoint(SMALL, path)
    assert only_files(path)


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "torn"])
def test_a_file_that_is_no_checkpoint_is_named(content: bytes | None, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    for read in (AtomicCheckpointIO().load_checkpoint, steps_taken):
        with pytest.raises(
            UserError, match=r"last.ckpt: is broken, or not a checkpoint .*delete it to start its stage"
        ):
            read(path)


def test_the_step_is_read_without_the_weights(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, Any]] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **keys: loaded.append(load(*args, **keys)) or loaded[-1])
    assert steps_taken(path) == 3
    assert loaded[0]["weights"].is_meta


class Saves(LastCheckpoint):
    """Notes after how many steps and batches a checkpoint was saved."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        before = self.path.stat().st_mtime_ns if self.path.exists() else 0
        super().on_train_batch_end(trainer, *args)
        if self.path.exists() and self.path.stat().st_mtime_ns != before:
            self.saved.append((trainer.global_step, args[-1] + 1))

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__(path, seconds)
        self.saved: list[tuple[int, int]] = []


def run(saves: Saves, make_trainer: Any, make_loader: Any, tiny: Any, **settings: Any) -> None:
    trainer = make_trainer([saves], max_epochs=-1, enable_checkpointing=True, **settings)
    trainer.fit(tiny(), make_loader(batches=8))


def test_checkpoints_come_after_whole_steps_and_not_after_the_last(
    tmp_path: Path, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    saves = Saves(tmp_path / "last.ckpt", seconds=0)
    run(saves, make_trainer, make_loader, tiny, max_steps=4, accumulate_grad_batches=2)
    assert saves.saved == [(1, 2), (2, 4), (3, 6)]
    assert steps_taken(saves.path) == 3
    assert len(list(tmp_path.iterdir())) == 1


def test_a_pause_lies_between_checkpoints(
    tmp_path: Path, make_trainer: Any, make_loader: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = io.StringIO()  # a second passes with each look

    def tick() -> float:
        clock.write(".")
        return float(len(clock.getvalue()))

    monkeypatch.setattr(checkpoint_io.time, "monotonic", tick)
    saves = Saves(tmp_path / "last.ckpt", seconds=1000)
    run(saves, make_trainer, make_loader, tiny, max_steps=6)
    assert saves.saved == []
    saves = Saves(tmp_path / "last.ckpt", seconds=0.5)
    run(saves, make_trainer, make_loader, tiny, max_steps=3)
    assert [step for step, _ in saves.saved] == [1, 2]


def test_what_dead_processes_have_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "last.ckpt"
    gone = [f".last.ckpt.{dead.pid}.tmp", f".model.safetensors.{dead.pid}.tmp", f".last.ckpt.{os.getpid()}.tmp"]
    kept = [f".last.ckpt.{os.getppid()}.tmp", "last.ckpt", "other.tmp"]
    for name in (*gone, *kept):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".last-00000003.dcp.tmp").mkdir()
    (tmp_path / ".last-00000003.dcp.tmp" / "__0_0.distcp").write_bytes(b"half")
    remove_leftovers(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)
