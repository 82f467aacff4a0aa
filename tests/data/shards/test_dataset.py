from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.utils.errors import UserError


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_any_record_by_itself(packed: Path) -> None:
    data = ShardDataset(packed)
    assert len(data) == 10 and not data.draws
    assert [data[i].id for i in (7, 0, 9)] == ["r7", "r0", "r9"]
    assert (data.name, data.split) == ("source", "train")


def test_it_travels_to_workers(packed: Path) -> None:
    data = ShardDataset(packed)
    first = data[0]
    assert pickle.loads(pickle.dumps(data))[0] == first


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/index.json: not found; expected a folder of packed records"):
        ShardDataset(tmp_path / "none")


def test_a_missing_shard(packed: Path) -> None:
    path = packed / "shard-000001.tar"
    size = path.stat().st_size
    path.unlink()
    with pytest.raises(UserError, match=rf"shard-000001.tar: the shard is missing; the index expects {size} bytes"):
        ShardDataset(packed)


def test_a_truncated_shard(packed: Path) -> None:
    path = packed / "shard-000000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"shard-000000.tar: {size - 100} bytes, the index expects {size}"):
        ShardDataset(packed)


def test_a_shard_that_shrinks_while_it_is_open(packed: Path) -> None:
    data = ShardDataset(packed)
    path = packed / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"shard-000000.tar: no record at byte \d+ \(88 bytes there, \d+ expected\)"):
        data[0]


def test_a_shard_of_other_content(packed: Path) -> None:
    path = packed / "shard-000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    data = ShardDataset(packed)
    with pytest.raises(UserError, match=r"shard-000000.tar: no record at byte \d+ \(.*the index does not belong"):
        data[0]


def test_an_index_that_counts_otherwise(packed: Path) -> None:
    change(packed / "index.json", count=11)
    with pytest.raises(UserError, match=r"offsets.json has 10 records, index.json 11 and its shards 10"):
        ShardDataset(packed)


def test_offsets_of_other_records(packed: Path) -> None:
    path = packed / "offsets.json"
    members = json.loads(path.read_text())
    members[0][1][0] += 3
    path.write_text(json.dumps(members))
    with pytest.raises(UserError, match="the index does not belong to this shard"):
        ShardDataset(packed)[0]


def test_an_index_without_its_keys(packed: Path) -> None:
    (packed / "index.json").write_text('{"count": 10}')
    with pytest.raises(UserError, match=r"index.json: KeyError.*expected an index written by packing"):
        ShardDataset(packed)


def test_an_index_cut_short(packed: Path) -> None:
    (packed / "index.json").write_text('{"count": ')
    with pytest.raises(UserError, match=r"index.json: 10 bytes that are no JSON"):
        ShardDataset(packed)
