"""Packed records split over ranks and loader workers: none twice, none lost, the same whoever reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import asked
from vargpt_lightning.data.loading.loader import StreamLoader, stream_loader
from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler, Place
from vargpt_lightning.data.mixing.spec import MixtureSpec
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
Drawn = tuple[str, int]  # a record's id and how often it was had before


class Named:
    """A record as it was drawn, instead of an example."""

    def __init__(self, record: Record, place: Place) -> None:
        self.name, self.skipped = (record.id, place.epoch), 0


def names(examples: Sequence[Named]) -> list[Drawn]:
    return [example.name for example in examples]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """23 records in uneven shards, 7 in a single one."""
    root = tmp_path_factory.mktemp("stream")
    uneven = (asked(f"u{i}", "long " * (3000 if i % 7 == 2 else 10)) for i in range(23))
    write_source(uneven, root / "uneven", split="train", shard_bytes=12_000)
    write_source((asked(f"s{i}") for i in range(7)), root / "single", split="train")
    return {name: root / name for name in ("uneven", "single")}


def loaders(
    folders: dict[str, Path], values: dict[str, float], ranks: int, workers: int, start: int = 0, **more: Any
) -> list[StreamLoader]:
    """One loader a rank, for an epoch in batches of 2."""
    sources = {name: ShardDataset(folder) for name, folder in folders.items()}
    mixture = Mixture(sources, Named)
    spec = MixtureSpec(mixture.sizes, values, "counts", 2, ranks, **more)
    shards = {name: source.shard_counts for name, source in sources.items()}
    settings: dict[str, Any] = {"steps": spec.batches(1), "start_step": start, "shards": shards, "window": 2}
    samplers = [MixtureBatchSampler(spec, rank=rank, **settings) for rank in range(ranks)]
    return [stream_loader(mixture, sampler, names, workers=workers) for sampler in samplers]


def test_the_shards_are_uneven_and_fewer_than_readers(folders: dict[str, Path]) -> None:
    assert ShardDataset(folders["single"]).shard_counts == [7]
    counts = ShardDataset(folders["uneven"]).shard_counts
    assert 2 < len(counts) < 9 and len(set(counts)) > 1


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("groups", [None, {"uneven": "text", "single": "drawn"}], ids=["mixed", "grouped"])
def test_an_epoch_has_every_record_once(
    groups: dict[str, str] | None, ranks: int, workers: int, folders: dict[str, Path]
) -> None:
    read = [list(loader) for loader in loaders(folders, {"uneven": 23, "single": 7}, ranks, workers, groups=groups)]
    assert len({len(batches) for batches in read}) == 1, "ranks that wait for one another have as many batches"
    assert {len(batch) for batches in read for batch in batches} == {2}, "and all of them are full"
    drawn = Counter(drawn for batches in read for batch in batches for drawn in batch)
    assert max(drawn.values()) == 1
    first = {name for name, epoch in drawn if epoch == 0}
    assert first == {f"u{i}" for i in range(23)} | {f"s{i}" for i in range(7)}
    assert len(drawn) - 30 < 2 * ranks * len(groups or [0]), "what fills the last batches is of the next epoch"
    # every rank's batch of a step is of one sort, so that they call the same parts of the model
    if groups:
        assert all(len({name[0] for each in step for name, _ in each}) == 1 for step in zip(*read, strict=True))


def test_workers_change_nothing_and_neither_does_a_new_beginning(folders: dict[str, Path]) -> None:
    (plain,) = loaders(folders, {"uneven": 40, "single": 5}, 1, 0)
    whole = list(plain)
    for workers, start in [(1, 0), (3, 0), (0, 9), (3, 4)]:
        (other,) = loaders(folders, {"uneven": 40, "single": 5}, 1, workers, start)
        assert list(other) == whole[start:]
    (again,) = loaders(folders, {"uneven": 40, "single": 5}, 1, 1)
    assert list(again) == list(again) == whole


def test_a_smaller_corpus_is_walked_again_and_repeats_are_spread(folders: dict[str, Path]) -> None:
    (loader,) = loaders(folders, {"uneven": 10, "single": 25}, 1, 0)
    drawn = [drawn for batch in loader for drawn in batch][:35]
    single = [(name, epoch) for name, epoch in drawn if name[0] == "s"]
    assert [epoch for _, epoch in single] == sorted(epoch for _, epoch in single), "none again before all were had"
    assert Counter(Counter(name for name, _ in single).values()) == {4: 4, 3: 3}
    places = [place for place, (name, _) in enumerate(drawn) if name[0] == "u"]
    assert max(b - a for a, b in pairwise(places)) <= 7, "the corpora take turns"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_vanished_is_one_clear_error(workers: int, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    write_source((asked(f"r{i}") for i in range(8)), folder, split="train", shard_bytes=9000)
    (loader,) = loaders({"gone": folder}, {"gone": 8}, 1, workers)
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(UserError) as error:
        list(loader)
    told = str(error.value)
    assert told.endswith("it was there when the data were opened") and "shard-000001.tar: cannot be opened" in told
    assert "\n" not in told and "Traceback" not in told


def test_many_shards_do_not_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    write_source((asked(f"r{i}") for i in range(9)), folder, split="train", shard_bytes=1)
    monkeypatch.setattr("vargpt_lightning.data.shards.dataset._OPEN_FILES", 3)
    data = ShardDataset(folder)
    assert [record.id for record in data] + [data[0].id] == [f"r{i}" for i in range(9)] + ["r0"]
    assert len(data._handles) == 3
