"""Checkpoints that all processes write together: a folder for each, whole or not taken for one.

    last-00000120.dcp/
        .metadata, __0_0.distcp, __1_0.distcp, ...   weights, optimizer states, averages (torch.distributed.checkpoint)
        rest.pt                                      what every process has alike: loops, schedules, callbacks
        complete.json                                the step, and each file with its size; written last

A folder is written under another name and renamed when it is whole; the one before is deleted after that. Reading asks
for as much as each process has to hold, so that another number of processes can take a checkpoint up.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse

from vargpt_lightning.checkpoints.dcp.reader import FillPlanner, FolderReader, WholePlanner, read_metadata
from vargpt_lightning.checkpoints.format import FOLDER_SUFFIX
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, write_json

REST, COMPLETE = "rest.pt", "complete.json"
SUFFIX = FOLDER_SUFFIX
AVERAGES = "averages"


def folder_for(path: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint, `path` being the file that one process would write."""
    return path.with_name(f"{path.stem}-{step:08d}{SUFFIX}")


def complete_folders(path: Path) -> list[Path]:
    """Return the folders beside a checkpoint file that are whole, oldest first."""
    named = re.compile(rf"{re.escape(path.stem)}-\d+{re.escape(SUFFIX)}")
    found = [folder for folder in path.parent.glob(f"{path.stem}-*{SUFFIX}") if named.fullmatch(folder.name)]
    return sorted(folder for folder in found if is_complete(folder))


def is_complete(folder: Path) -> bool:
    """Whether all files are there, as long as they were when the last of them was written."""
    file = folder / COMPLETE
    if not file.is_file():
        return False
    with contextlib.suppress(UserError, OSError, AttributeError):
        sizes = read_json(file).get("files", {})
        return bool(sizes) and all(
            (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    return False


def step_of(folder: Path) -> int:
    """Return the optimizer step that a whole folder was saved after.

    Raises:
        UserError: it is not whole.
    """
    if not is_complete(folder):
        raise UserError(f"{folder}: is not a complete checkpoint; delete it to start its stage again")
    return int(read_json(folder / COMPLETE)["global_step"])


class FolderWriter:
    """Writes one checkpoint at a time, by all processes together.

    Args:
        asynchronous: copy the tensors and write them while training goes on.

    Raises:
        UserError: from `save` and `wait`, when a process cannot write: the checkpoint before is still there.
    """

    def __init__(self, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous
        self._group: Any = None
        self._pending: tuple[Any, dict[str, Any], Path] | None = None

    def save(self, tensors: dict[str, Any], rest: dict[str, Any], target: Path) -> None:
        """Write tensors, each process its parts, and the rest, which the first process writes."""
        self.wait()
        temporary = _temporary(target)
        first = dist.get_rank() == 0
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        writer = dcp.FileSystemWriter(temporary, overwrite=True)
        if self.asynchronous:
            if self._group is None:  # its messages must not cross those of training
                self._group = dist.new_group(backend="gloo")
            future = dcp.async_save(tensors, storage_writer=writer, process_group=self._group)
            self._pending = (future, rest, target)
            return
        with self._kept(target):
            dcp.save(tensors, storage_writer=writer)
            self._finish(rest, target)

    def wait(self) -> None:
        """Return when the checkpoint in hand is whole."""
        if self._pending is None:
            return
        future, rest, target = self._pending
        self._pending = None
        with self._kept(target):
            (future.upload_completion if isinstance(future, AsyncSaveResponse) else future).result()
            self._finish(rest, target)

    def ready(self) -> bool:
        """Whether this process has written its part of the checkpoint in hand; True when there is none."""
        if self._pending is None:
            return True
        future = self._pending[0]
        return bool((future.upload_completion if isinstance(future, AsyncSaveResponse) else future).done())

    def _finish(self, rest: dict[str, Any], target: Path) -> None:
        """Write the rest, rename, delete what was before; all processes learn whether it went well."""
        failure: list[Any] = [None]
        if dist.get_rank() == 0:
            try:
                _complete(rest, target)
            except (OSError, RuntimeError) as error:
                failure = [str(error)]
        dist.broadcast_object_list(failure, src=0)
        if failure[0] is not None:
            raise OSError(failure[0])

    @contextlib.contextmanager
    def _kept(self, target: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
            if dist.get_rank() == 0:
                shutil.rmtree(_temporary(target), ignore_errors=True)
            before = any(folder.is_dir() for folder in target.parent.glob(f"*{SUFFIX}"))
            kept = "the checkpoint before it is kept" if before else "there is none before it"
            raise UserError(
                f"{target}: the checkpoint cannot be written ({_reason(error)}); {kept}: make room, and run the same "
                "command again"
            ) from error


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def _complete(rest: dict[str, Any], target: Path) -> None:
    temporary = _temporary(target)
    with open(temporary / REST, "wb") as file:
        torch.save(rest, file)
        file.flush()
        os.fsync(file.fileno())
    sizes = {file.name: file.stat().st_size for file in temporary.iterdir() if file.name != COMPLETE}
    write_json(temporary / COMPLETE, {"global_step": rest["global_step"], "files": sizes})
    if is_complete(target):  # of the same step, from an attempt before: the same state
        shutil.rmtree(temporary)
    else:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    prefix = target.name.rpartition("-")[0]
    for folder in target.parent.glob(f"{prefix}-*{SUFFIX}"):
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """What the operating system said, in whichever process."""
    failures = getattr(error, "failures", None)
    causes = [failure[0] if isinstance(failure, tuple) else failure for failure in (failures or {}).values()]
    for cause in [*causes, error]:
        seen: BaseException | None = cause
        while seen is not None:
            if isinstance(seen, OSError):
                return seen.strerror or str(seen)
            seen = seen.__cause__ or seen.__context__
    return str(causes[0] if causes else error).splitlines()[0]


def load_tensors(folder: Path, into: dict[str, Any]) -> None:
    """Fill tensors in place from a checkpoint, each process reading what it holds.

    Raises:
        UserError: the folder is not whole, or lacks a tensor.
    """
    step_of(folder)
    reader = FolderReader(folder)
    reader.read_metadata()  # what is wrong with it is told as it is, not as one of several processes' failures
    try:
        dcp.load(into, storage_reader=reader, planner=FillPlanner())
    except (dcp.api.CheckpointException, RuntimeError, ValueError, KeyError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: does not fit the model, or is broken ({_reason(error)})") from error


def load_rest(folder: Path) -> dict[str, Any]:
    """Return what is no tensor of the model."""
    step_of(folder)
    try:
        loaded: dict[str, Any] = torch.load(folder / REST, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        why = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise UserError(
            f"{folder / REST}: cannot be read ({why}); delete the folder to begin its stage anew"
        ) from error
    return loaded


def keys_of(folder: Path) -> set[str]:
    """Return the names of a checkpoint's tensors, their levels divided by dots."""
    return set(read_metadata(folder).state_dict_metadata)


def load_whole(folder: Path) -> dict[str, Any]:
    """Return all tensors of a checkpoint, whole, as nested dictionaries; needs no other process."""
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    step_of(folder)
    state: dict[str, Any] = {}
    try:
        _load_state_dict(state, storage_reader=FolderReader(folder), planner=WholePlanner(), no_dist=True)
    except (dcp.api.CheckpointException, RuntimeError, ValueError, KeyError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: is broken ({_reason(error)})") from error
    return state


def load_as_file(folder: Path) -> dict[str, Any]:
    """Return a folder's checkpoint as one process would have written it: everything whole, optimizer states by number.

    Raises:
        UserError: the folder is not whole.
    """
    tensors = load_whole(folder)
    rest = load_rest(folder)
    states = [tensors[f"optimizer_{index}"] for index in range(sum(key.startswith("optimizer_") for key in tensors))]
    rest |= {"state_dict": tensors["model"], "optimizer_states": [by_number(state) for state in states]}
    rest["callbacks"] = with_averages(rest.get("callbacks", {}), tensors.get(AVERAGES, {}))
    return rest


def by_number(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state by parameters' places in its groups, from one by their names."""
    numbers: dict[str, int] = {}
    for group in state["param_groups"]:
        for name in group["params"]:
            numbers[name] = len(numbers)
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
    found = {numbers[name]: value for name, value in state["state"].items()}
    return {"state": found, "param_groups": groups}


def by_name(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return an optimizer's state by names, from one by places; `names` are those of its parameters in their order."""
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[number]: value for number, value in state["state"].items()}, "param_groups": groups}


def without_averages(callbacks: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the callbacks' states without the averages of weights, and these."""
    plain: dict[str, Any] = {}
    found: dict[str, Tensor] = {}
    for key, state in callbacks.items():
        if isinstance(state, dict) and state.get(AVERAGES):
            found |= state[AVERAGES]
            state = {**state, AVERAGES: {}}
        plain[key] = state
    return plain, found


def with_averages(callbacks: Mapping[str, Any], averages: dict[str, Tensor]) -> dict[str, Any]:
    """Return the callbacks' states with the averages in their place."""
    return {
        key: {**state, AVERAGES: averages} if isinstance(state, dict) and AVERAGES in state else state
        for key, state in callbacks.items()
    }
