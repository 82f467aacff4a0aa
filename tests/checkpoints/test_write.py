"""Files of tensors written one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file, save_file

from vargpt_lightning.checkpoints.lazy_tensors import DTYPES, MemoryTensor, open_weights
from vargpt_lightning.checkpoints.write import plan_shards, write_pickle, write_safetensors, write_shards
from vargpt_lightning.utils.errors import UserError


def into_pickle(folder: Path, state: dict[str, MemoryTensor]) -> None:
    write_pickle(folder / "x.pth", state)


def of_every_type() -> dict[str, torch.Tensor]:
    made = {f"x{i}": torch.arange(6).view(2, 3).to(dtype) for i, dtype in enumerate(DTYPES.values())}
    return {**made, "ä": torch.ones(1), "turned": torch.randn(2, 3).t().contiguous(), "empty": torch.empty(0, 3)}


def test_a_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = of_every_type()
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours.safetensors", {key: MemoryTensor(value) for key, value in tensors.items()})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_shards_keep_the_limit_and_have_an_index(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(7)}
    tensors["large"] = torch.ones(100)
    sources = {key: MemoryTensor(value) for key, value in tensors.items()}
    assert [list(shard) for shard in plan_shards(sources, 120)] == [
        ["t0", "t1", "t2"],
        ["t3", "t4", "t5"],
        ["t6"],
        ["large"],
    ]
    files = write_shards(tmp_path, sources, 120)
    assert [file.name for file in files] == [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 680
    for key, value in tensors.items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][key])[key], value)
    found = open_weights(tmp_path)
    assert found.keys() == tensors.keys()


def test_a_pickle_is_what_torch_writes(tmp_path: Path) -> None:
    tensors = of_every_type()
    torch.save(tensors, tmp_path / "theirs.pth")
    write_pickle(tmp_path / "ours.pth", {key: MemoryTensor(value) for key, value in tensors.items()})
    records = [
        {entry.filename.split("/", 1)[1]: entry.CRC for entry in ZipFile(tmp_path / f"{name}.pth").infolist()}
        for name in ("ours", "theirs")
    ]
    differing = {name for name in records[0].keys() | records[1].keys() if records[0].get(name) != records[1].get(name)}
    # one string is there several times, where torch points to the first
    assert differing == {"data.pkl", ".data/serialization_id"}
    assert ZipFile(tmp_path / "ours.pth").testzip() is None
    found = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert list(found) == list(tensors)
    for key, value in tensors.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key].float(), value.float())


@pytest.mark.parametrize("write", [lambda folder, state: write_shards(folder, state, 40), into_pickle])
def test_one_tensor_is_held_at_a_time(tmp_path: Path, write: Any) -> None:
    alive: list[int] = []

    class Watched(MemoryTensor):
        def part(self, *where: slice) -> torch.Tensor:
            made = torch.ones(self.shape)
            alive.append(1)
            import weakref

            weakref.finalize(made, alive.pop)
            assert len(alive) <= 2  # the one before goes when this one has come
            return made

    write(tmp_path, {f"t{i}": Watched(torch.empty(5)) for i in range(9)})
    assert not alive


def test_a_view_does_not_drag_its_storage_along(tmp_path: Path) -> None:
    whole = torch.zeros(100_000)
    write_pickle(tmp_path / "x.pth", {"view": MemoryTensor(whole[:3])})
    assert (tmp_path / "x.pth").stat().st_size < 10_000
    assert torch.equal(torch.load(tmp_path / "x.pth", weights_only=True)["view"], whole[:3])


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    class Full(MemoryTensor):
        def part(self, *where: slice) -> torch.Tensor:
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"no space left on the disk while writing .*model\.safetensors"):
        write_shards(tmp_path, {"x": Full(torch.ones(2))})
    assert not list(tmp_path.iterdir())


def test_a_type_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x: type torch\.complex64 has no place in safetensors"):
        write_safetensors(tmp_path / "x.safetensors", {"x": MemoryTensor(torch.ones(1, dtype=torch.complex64))})
