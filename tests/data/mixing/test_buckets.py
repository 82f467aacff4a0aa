"""Corpora by the size that their pictures are to have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vargpt_lightning.data.images.shapes import nearest_size
from vargpt_lightning.data.mixing.buckets import (
    Sized,
    buckets_of,
    corpus_of,
    mixture_values,
    record_sizes,
    size_of,
)
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, PicturePart, Record, TextPart, Turn

SHAPES = ((64, 64), (64, 96), (96, 64))  # height, width


def picture(width: int, height: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(content, "PNG")
    return content.getvalue()


def record(name: str, *files: bytes) -> Record:
    parts = tuple(PicturePart(DRAWN, f"{name}-{number}", data) for number, data in enumerate(files))
    return Record(name, "test", (Turn("user", (TextPart("draw"),)), Turn("assistant", parts or (TextPart("no"),))))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    files = [picture(10, 10), picture(30, 20), picture(20, 30), picture(100, 40), b"broken"]
    records = [record(f"r{number}", data) for number, data in enumerate(files)]
    records += [record("words"), record("both", picture(20, 30), picture(30, 20))]
    folder = tmp_path_factory.mktemp("shapes") / "corpus"
    write_source(records, folder, name="shapes", split="train")
    return ShardDataset(folder)


def test_a_picture_goes_to_the_nearest_aspect_ratio() -> None:
    assert [nearest_size(*shape, SHAPES) for shape in ((7, 7), (10, 16), (16, 10), (1, 50))] == [0, 1, 2, 1]
    assert nearest_size(5, 4, SHAPES) == 0 == nearest_size(5, 4, SHAPES[::2]), "in the middle between two"


def test_sizes_of_records_are_measured_once(
    corpus: ShardDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [0, 1, 2, 1, 0, 0, 2]
    assert record_sizes(corpus, SHAPES, tmp_path).tolist() == expected
    assert "measuring the pictures of 7 records, once" in capsys.readouterr().out
    assert record_sizes(corpus, SHAPES, tmp_path).tolist() == expected and not capsys.readouterr().out
    assert record_sizes(corpus, SHAPES[:1], tmp_path).tolist() == [0] * 7
    assert [size_of(each, SHAPES) for each in corpus] == expected


def test_a_bucket_reads_its_records_at_its_size(corpus: ShardDataset, tmp_path: Path) -> None:
    buckets = buckets_of("photos", record_sizes(corpus, SHAPES, tmp_path))
    assert [(bucket.name, bucket.positions.tolist()) for bucket in buckets] == [
        ("photos", [0, 4, 5]),
        ("photos@1", [1, 3]),
        ("photos@2", [2, 6]),
    ]
    tall = Sized(corpus, buckets[2])
    assert len(tall) == 2 and tall[1].id == "both" and [part.size for part in tall[1].pictures()] == [2, 2]
    assert [part.size for part in Sized(corpus, buckets[0])[0].pictures()] == [0]
    assert buckets[1].shards([2, 3, 2]) == [1, 1, 0] and corpus_of("photos@2") == "photos" == corpus_of("photos")
    some = buckets_of("photos", record_sizes(corpus, SHAPES, tmp_path), np.array([1, 5]))
    assert [(bucket.name, bucket.positions.tolist()) for bucket in some] == [("photos", [5]), ("photos@1", [1])]


def test_a_corpus_s_part_of_a_mixture_is_spread_over_its_buckets() -> None:
    found = {"a": buckets_of("a", np.array([0, 0, 0, 1])), "b": buckets_of("b", np.array([2, 2, 2]))}
    assert mixture_values({"a": 2.0, "b": 1.0}, "weights", found) == {"a": 1.5, "a@1": 0.5, "b@2": 1.0}
    assert mixture_values({"a": 0.5}, "passes", found) == {"a": 0.5, "a@1": 0.5}
    assert mixture_values({"a": 6.0, "b": 5.0}, "counts", found) == {"a": 5.0, "a@1": 1.0, "b@2": 5.0}
    assert mixture_values({"a": 1.0, "c": 2.0}, "counts", found) == {"a": 1.0, "a@1": 0.0, "c": 2.0}
