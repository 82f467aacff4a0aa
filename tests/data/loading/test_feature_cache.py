from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.images.pictures import PictureError, PictureReader
from vargpt_lightning.data.loading.feature_cache import FeatureCache, pictures_of, weights_hash
from vargpt_lightning.utils.errors import UserError

PICTURES = {name: png(name) for name in ("red", "green", "blue")}
READER = PictureReader(8, variants=3)


class Tower:
    """Counts what it is asked; its features are the means of the colours, at two places."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x_B3HW: Tensor) -> Tensor:
        self.batches.append(len(x_B3HW))
        return x_B3HW.flatten(2).unflatten(2, (2, -1)).mean(-1).transpose(1, 2)


def test_features_of_all_pictures_and_variants() -> None:
    tower = Tower()
    cache = FeatureCache.build(PICTURES, READER, tower, network="n", plain=["blue"], batch_size=4)
    assert tower.batches == [4, 3]
    assert [cache.variants_of(key) for key in PICTURES] == [3, 3, 1]
    for key, data in PICTURES.items():
        for variant in range(cache.variants_of(key)):
            expected = Tower()(READER.read(data, key, variant)[None])[0]
            assert torch.equal(cache.read(None, key, variant), expected)
    assert torch.equal(cache.read(None, "blue", 2), cache.read(None, "blue", 0))


def test_features_can_be_trained_through() -> None:
    cache = FeatureCache.build(PICTURES, READER, Tower(), network="n")
    weight = torch.ones(3, requires_grad=True)
    (cache.read(None, "red") * weight).sum().backward()
    assert weight.grad is not None


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    path, tower = tmp_path / "sub" / "features.safetensors", Tower()
    first = FeatureCache.build(PICTURES, READER, tower, network="n", path=path)
    second = FeatureCache.build(PICTURES, READER, tower, network="n", path=path)
    assert len(tower.batches) == 1 and torch.equal(first.values, second.values) and first.rows == second.rows
    assert [file.name for file in path.parent.iterdir()] == ["features.safetensors"]


def test_pictures_that_came_later_are_computed(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    FeatureCache.build({"red": PICTURES["red"]}, READER, Tower(), network="n", path=path)
    cache = FeatureCache.build(PICTURES, READER, Tower(), network="n", path=path)
    assert len(cache) == 3 and len(FeatureCache.load(path)) == 3


def test_other_pictures_of_the_same_keys_are_computed_again(tmp_path: Path) -> None:
    path, tower = tmp_path / "f.safetensors", Tower()
    FeatureCache.build(PICTURES, READER, tower, network="n", path=path)
    others = dict(zip(PICTURES, reversed(PICTURES.values()), strict=True))
    cache = FeatureCache.build(others, READER, tower, network="n", path=path)
    assert torch.equal(cache.read(None, "red"), Tower()(READER.read(PICTURES["blue"])[None])[0])
    FeatureCache.build(others, READER, tower, network="n", path=path, plain=["red"])
    FeatureCache.build(others, READER, tower, network="n", path=path, names={"blue": "b"})
    assert len(tower.batches) == 4, "fewer variants, and those of another name, are others too"


def test_a_stale_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    FeatureCache.build(PICTURES, READER, Tower(), network="old", path=path)
    with pytest.raises(UserError, match=r"t.safetensors: made with old-.*, now it is new-"):
        FeatureCache.build(PICTURES, READER, Tower(), network="new", path=path)
    with pytest.raises(UserError, match="other picture settings"):
        FeatureCache.build(PICTURES, PictureReader(16, variants=3), Tower(), network="old", path=path)


@pytest.mark.parametrize("content", [b"", b"half a file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"t.safetensors: cannot be read"):
        FeatureCache.load(path)


def test_bad_pictures_are_remembered_and_unknown_ones_are_an_error(tmp_path: Path) -> None:
    path, tower = tmp_path / "t.safetensors", Tower()
    pictures = PICTURES | {"bad": b"no picture"}
    for _ in range(2):
        cache = FeatureCache.build(pictures, READER, tower, network="n", path=path)
    assert len(tower.batches) == 1
    with pytest.raises(PictureError, match="'bad': could not be decoded"):
        cache.read(None, "bad")
    with pytest.raises(UserError, match="'new': not in the cache of 4 pictures") as error:
        cache.read(None, "new")
    assert not isinstance(error.value, PictureError)


def test_bad_pictures_alone() -> None:
    with pytest.raises(UserError, match="none of 1 pictures could be read"):
        FeatureCache.build({"bad": b"x"}, READER, Tower(), network="n")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.safetensors"
    cache = FeatureCache.build(PICTURES, READER, Tower(), network="n", path=path)
    before = path.read_bytes()

    def full(tensors: object, name: str, metadata: object) -> None:
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vargpt_lightning.data.loading.feature_cache.save_file", full)
    with pytest.raises(UserError, match=r"t.safetensors: cannot be written .*No space left"):
        cache.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_hash_of_weights_sees_names_types_and_values() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    hashes = [
        weights_hash({"w": weight}),
        weights_hash({"v": weight}),
        weights_hash({"w": weight.reshape(3, 2)}),
        weights_hash({"w": weight.double()}),
        weights_hash({"w": weight + 1e-6}),
    ]
    assert len(set(hashes)) == 5
    assert weights_hash({"a": weight, "b": weight.bfloat16()}) == weights_hash({"b": weight.bfloat16(), "a": weight})


def test_pictures_of_records_by_use() -> None:
    records = [asked("a"), drawn("b"), asked("a")]
    assert set(pictures_of(records, "seen")) == {"a"} and set(pictures_of(records, "drawn")) == {"b"}
