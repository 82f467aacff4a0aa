"""Folders of checkpoints: whole or not taken for one, also when the disk is full. One process stands for all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import filesystem, metadata

from vargpt_lightning.callbacks.checkpoint_io import last_checkpoint, remove_checkpoints, steps_taken
from vargpt_lightning.checkpoints.atomic import AtomicCheckpointIO
from vargpt_lightning.checkpoints.dcp import folder as module
from vargpt_lightning.checkpoints.dcp.folder import FolderWriter, complete_folders, folder_for, load_rest, load_tensors
from vargpt_lightning.checkpoints.dcp.tensors import open_distributed
from vargpt_lightning.utils.errors import UserError


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


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def with_metadata(folder: Path, change: Any) -> None:
    """Write other metadata into a folder that stays whole."""
    file = folder / ".metadata"
    found = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(change(found)))
    whole_again(folder)


def whole_again(folder: Path) -> None:
    record = json.loads((folder / module.COMPLETE).read_text())
    record["files"] = {name: (folder / name).stat().st_size for name in record["files"]}
    (folder / module.COMPLETE).write_text(json.dumps(record))


def readers(folder: Path) -> list[Any]:
    """All ways in which a folder is read: by resuming, by conversion, as first weights."""
    return [
        lambda: load_tensors(folder, {"model": {"weight": torch.zeros(64)}}),
        lambda: module.keys_of(folder),
        lambda: module.load_whole(folder),
        lambda: module.load_as_file(folder),
        lambda: AtomicCheckpointIO().load_checkpoint(folder),
        lambda: [each.part() for each in open_distributed(folder, "model.").values()],
    ]


def dotted(marker: Path) -> bytes:
    """A name that leads from a class that is known to the module `os`."""
    name = b"torch.distributed.checkpoint.metadata\nos.mkdir\n"
    return b"c" + name + b"(V" + str(marker).encode() + b"\ntR."


def by_getattr(marker: Path) -> bytes:
    return b"cbuiltins\ngetattr\n(cos\n__dict__\nVmkdir\ntR(V" + str(marker).encode() + b"\ntR."


def changes_a_class(marker: Path) -> bytes:
    name = b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
    return name + b"(N}Vversion\nV" + str(marker).encode() + b"\nstb."


HARM: dict[str, Any] = {
    "all": lambda found, marker: Runs(marker),
    "planner": lambda found, marker: dataclasses.replace(found, planner_data={"model.weight": Runs(marker)}),
    "storage": lambda found, marker: dataclasses.replace(found, storage_meta=Runs(marker)),
    "entry": lambda found, marker: dataclasses.replace(
        found, state_dict_metadata=found.state_dict_metadata | {"other": Runs(marker)}
    ),
}


@pytest.mark.parametrize("harm", [*HARM, dotted, by_getattr, changes_a_class])
def test_metadata_that_name_more_than_torch_writes_run_nothing(harm: Any, path: Path, tmp_path: Path) -> None:
    folder, marker = save(path, 4), tmp_path / "marker"
    if callable(harm):
        (folder / ".metadata").write_bytes(harm(marker))
        whole_again(folder)
    else:
        with_metadata(folder, lambda found: HARM[harm](found, marker))
    for read in readers(folder):
        with pytest.raises(UserError, match=r"\.metadata"):
            read()
        assert not marker.exists()
    assert metadata.Metadata.version is None


@pytest.mark.parametrize("name", ["../other.distcp", "/etc/hostname", "..", 7])
def test_metadata_that_point_elsewhere_are_refused(name: Any, path: Path) -> None:
    folder = save(path, 4)

    def change(found: Any) -> Any:
        for place in found.storage_data.values():
            place.relative_path = name
        return found

    with_metadata(folder, change)
    for read in readers(folder):
        with pytest.raises(UserError, match=r"\.metadata"):
            read()


@pytest.mark.parametrize("found", [None, {}, [1], {"model.weight": 3}])
def test_what_is_no_metadata_is_refused(found: Any, path: Path) -> None:
    folder = save(path, 4)
    with_metadata(folder, lambda before: found)
    for read in readers(folder):
        with pytest.raises(UserError, match=r"\.metadata"):
            read()


def test_entries_that_are_no_tensors_run_nothing(path: Path, tmp_path: Path) -> None:
    """Settings of an optimizer lie in the shards as pickles; tensors are read by torch as weights."""
    marker, target = tmp_path / "marker", folder_for(path, 4)
    state = {"model": {"weight": torch.ones(64)}, "optimizer_0": {"param_groups": [{"lr": 0.5}], "more": Runs(marker)}}
    FolderWriter().save(state, {"global_step": 4}, target)
    assert marker.exists() is False
    for read in (
        lambda: module.load_whole(target),
        lambda: load_tensors(target, {"optimizer_0": {"more": None}}),
    ):
        with pytest.raises(UserError, match="more"):
            read()
        assert not marker.exists()
    groups: dict[str, Any] = {"optimizer_0": {"param_groups": [{"lr": 0.0}]}}
    load_tensors(target, groups)
    assert groups == {"optimizer_0": {"param_groups": [{"lr": 0.5}]}}


def test_the_rest_runs_nothing(path: Path, tmp_path: Path) -> None:
    folder, marker = save(path, 4), tmp_path / "marker"
    torch.save({"global_step": 4, "loops": Runs(marker)}, folder / module.REST)
    whole_again(folder)
    with pytest.raises(UserError, match=module.REST):
        load_rest(folder)
    assert not marker.exists()
