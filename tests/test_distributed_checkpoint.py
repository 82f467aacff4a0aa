"""Folders of checkpoints: whole or not taken for one, also when the disk is full. One process stands for all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import filesystem

from vargpt_lightning import distributed_checkpoint as module
from vargpt_lightning.callbacks.checkpoint_io import last_checkpoint, remove_checkpoints, steps_taken
from vargpt_lightning.distributed_checkpoint import FolderWriter, complete_folders, folder_for, load_rest, load_tensors
from vargpt_lightning.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where one process would write its checkpoint."""
    return tmp_path / "last.ckpt"


def save(path: Path, step: int, writer: FolderWriter | None = None) -> Path:
    target = folder_for(path, step)
    writer = writer or FolderWriter()
    writer.save({"model": {"weight": torch.full((64,), float(step))}}, {"global_step": step, "loops": [1]}, target)
    return target


def test_what_is_saved_is_loaded_and_the_one_before_is_gone(path: Path) -> None:
    save(path, 3)
    folder = save(path, 4)
    assert complete_folders(path) == [folder] == list(path.parent.iterdir())
    assert last_checkpoint(path) == folder and steps_taken(folder) == 4
    found = {"model": {"weight": torch.zeros(64)}}
    load_tensors(folder, found)
    assert torch.equal(found["model"]["weight"], torch.full((64,), 4.0))
    assert load_rest(folder) == {"global_step": 4, "loops": [1]}
    assert module.load_whole(folder)["model"]["weight"][0] == 4
    remove_checkpoints(path)
    assert not list(path.parent.iterdir())


def test_a_step_saved_again_is_kept(path: Path) -> None:
    save(path, 3)
    assert complete_folders(path) == [save(path, 3)]


def without_last_file(folder: Path) -> None:
    (folder / module.COMPLETE).unlink()


def without_shard(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()


def with_torn_shard(folder: Path) -> None:
    shard = next(folder.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-10])


def with_torn_record(folder: Path) -> None:
    (folder / module.COMPLETE).write_text('{"global_step": 9, "fi')


def with_empty_record(folder: Path) -> None:
    (folder / module.COMPLETE).write_text(json.dumps({"global_step": 9, "files": {}}))


@pytest.mark.parametrize(
    "harm", [without_last_file, without_shard, with_torn_shard, with_torn_record, with_empty_record]
)
def test_an_incomplete_folder_is_never_the_last_one(harm: Any, path: Path) -> None:
    newer = save(path, 9)
    newer.rename(path.parent / "kept")
    older = save(path, 8)
    (path.parent / "kept").rename(newer)
    assert last_checkpoint(path) == newer
    harm(newer)
    assert last_checkpoint(path) == older
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        steps_taken(newer)
    half = path.parent / f".{newer.name}.tmp"
    newer.rename(half)
    assert last_checkpoint(path) == older, "nor one that was being written"


def full(*args: Any, **keywords: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("what", ["shard", "rest"])
def test_a_full_disk_keeps_the_checkpoint_before(
    what: str, asynchronous: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(path, 3)
    writer = FolderWriter(asynchronous)
    monkeypatch.setattr(*((filesystem, "_write_item") if what == "shard" else (module.torch, "save")), full)
    with pytest.raises(UserError) as error:
        save(path, 4, writer)
        writer.wait()
    monkeypatch.undo()
    assert "cannot be written (No space left on device); the checkpoint before it is kept" in str(error.value)
    assert list(path.parent.iterdir()) == [before] and last_checkpoint(path) == before


def test_an_asynchronous_one_is_none_until_it_is_whole(path: Path) -> None:
    before, writer = save(path, 3), FolderWriter(asynchronous=True)
    after = save(path, 4, writer)
    assert last_checkpoint(path) == before and not after.exists()
    writer.wait()
    assert last_checkpoint(path) == after and writer.ready()


def test_what_training_does_meanwhile_is_not_in_it(path: Path) -> None:
    writer, weight = FolderWriter(asynchronous=True), torch.ones(1000)
    writer.save({"model": {"weight": weight}}, {"global_step": 1}, folder_for(path, 1))
    weight.fill_(7)
    writer.wait()
    assert module.load_whole(folder_for(path, 1))["model"]["weight"].max() == 1


def test_the_newer_of_a_file_and_a_folder_is_the_last(path: Path) -> None:
    torch.save({"global_step": 5}, path)
    folder = save(path, 4)
    assert last_checkpoint(path) == path
    torch.save({"global_step": 3}, path)
    assert last_checkpoint(path) == folder


def test_a_folder_of_another_model_is_named(path: Path) -> None:
    folder = save(path, 4)
    with pytest.raises(UserError, match="does not fit the model, or is broken"):
        load_tensors(folder, {"model": {"other": torch.zeros(64)}})
