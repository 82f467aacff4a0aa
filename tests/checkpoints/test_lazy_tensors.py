"""Tensors in files: found without being read, read in part, and what is no file of tensors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vargpt_lightning.checkpoints.lazy_tensors import FileTensor, MemoryTensor, open_weights
from vargpt_lightning.utils.errors import UserError


def some_tensors() -> dict[str, torch.Tensor]:
    return {
        "matrix": torch.randn(5, 3),
        "half": torch.randn(3, 7).bfloat16(),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "ids": torch.arange(6).view(2, 3),
        "flags": torch.tensor([True, False, True]),
    }


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_tensors_are_read_whole_and_in_part(name: str, tmp_path: Path) -> None:
    tensors, file = some_tensors(), tmp_path / name
    save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
    found = open_weights(file)
    assert found.keys() == tensors.keys()
    for key, value in tensors.items():
        stored = found[key]
        assert isinstance(stored, FileTensor) and stored.key == key and stored.file == file
        assert stored.dtype == value.dtype and stored.shape == value.shape
        assert torch.equal(stored.part(), value)
    assert torch.equal(found["matrix"].part(slice(1, 4), slice(1, 2)), tensors["matrix"][1:4, 1:2])
    assert torch.equal(found["half"].part(slice(2, 3)), tensors["half"][2:3])


def test_only_the_header_is_read(tmp_path: Path) -> None:
    """What stands at a tensor's place is seen when the tensor is read, and writing to it leaves the file alone."""
    for name in ("weights.safetensors", "weights.pth"):
        file = tmp_path / name
        state = {"matrix": torch.zeros(1000)}
        save_file(state, file) if name.endswith("safetensors") else torch.save(state, file)
        stored = open_weights(file)["matrix"]
        content = bytearray(file.read_bytes())
        content[stored.offset : stored.offset + 4000] = torch.ones(1000).numpy().tobytes()  # type: ignore[union-attr]
        file.write_bytes(content)
        part = stored.part()
        assert part.sum() == 1000
        part.zero_()
        assert file.read_bytes() == bytes(content)


def test_views_of_one_storage_are_found_in_a_pth(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"whole": whole, "turned": whole.t(), "last": whole[2], "kept": torch.nn.Parameter(torch.ones(2))}
    torch.save(tensors, tmp_path / "x.pth")
    found = open_weights(tmp_path / "x.pth")
    for key, value in tensors.items():
        assert torch.equal(found[key].part(), value), key


def test_the_older_format_of_torch_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3), "b": torch.randn(2, 2)}
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = open_weights(tmp_path / "old.pth")
    assert all(isinstance(found[key], MemoryTensor) and torch.equal(found[key].part(), tensors[key]) for key in tensors)


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    tensors = some_tensors()
    places = {key: f"model-{1 + (key > 'g')}.safetensors" for key in tensors}
    for name in set(places.values()):
        save_file({key: value for key, value in tensors.items() if places[key] == name}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert open_weights(tmp_path).keys() == tensors.keys() == open_weights(index).keys()
    index.write_text(json.dumps({"weight_map": {**places, "more": "model-1.safetensors"}}))
    with pytest.raises(UserError, match="1 of its tensors are not in their shards, such as more"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {**places, "more": "model-3.safetensors"}}))
    with pytest.raises(UserError, match=r"names the shard model-3\.safetensors, which is not there"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(UserError, match="expected a file beside the index"):
        open_weights(tmp_path)


class Dangerous:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("opened"),)


def test_a_file_that_could_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for old in (True, False):
        torch.save({"a": torch.ones(1), "b": Dangerous()}, "bad.pth", _use_new_zipfile_serialization=old)
        with pytest.raises(UserError, match=r"bad\.pth: holds more than tensors.*could run code.*take the tensors out"):
            open_weights(Path("bad.pth"))
        Path("plain.pth").write_bytes(pickle.dumps({"a": Dangerous()}))
        with pytest.raises(UserError, match=r"plain\.pth"):
            open_weights(Path("plain.pth"))
    assert not Path("opened").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"12345678", r"a\.safetensors is not readable as safetensors"),
        ("a.pth", b"", r"a\.pth is not readable as weights of torch"),
        ("a.pth", b"hello", r"a\.pth"),
        ("a.pth", b"PK\x03\x04junk", r"a\.pth is not readable as weights of torch"),
        ("a.npz", b"x", r"the suffix '\.npz' is not known for weights"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_weights(tmp_path / name)


def test_other_contents_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "pytorch-lightning_version": "2"}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds state_dict, .*; of a training checkpoint, give the run's folder"):
        open_weights(tmp_path / "a.pth")
    torch.save([torch.ones(1)], tmp_path / "b.pth")
    with pytest.raises(UserError, match="holds a list"):
        open_weights(tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"holds a\.pth, b\.pth; .*name one of its 2 files"):
        open_weights(tmp_path)
    with pytest.raises(UserError, match="there is no such file or folder"):
        open_weights(tmp_path / "none")
