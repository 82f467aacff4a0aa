from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from tests.data.conftest import asked, drawn
from vargpt_lightning.data.openmoji.questions import QuestionCounts
from vargpt_lightning.data.openmoji.source import OpenMojiSettings, build_openmoji
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import build_folder, cache_root, sample_members, write_source
from vargpt_lightning.data.shards.records import PicturePart, Record, Turn
from vargpt_lightning.utils.errors import UserError


def test_what_is_packed_is_read_again(tmp_path: Path) -> None:
    records = [asked("a"), drawn("b"), Record("c", "t", asked("x").turns + drawn("y").turns, {"n": 1})]
    write_source(records, tmp_path / "s", split="val")
    back = list(ShardDataset(tmp_path / "s"))
    assert back == records
    assert [p.data for r in back for p in r.pictures()] == [p.data for r in records for p in r.pictures()]


def test_the_index_describes_the_shards(packed: Path) -> None:
    index = json.loads((packed / "index.json").read_text())
    assert (index["split"], index["count"], index["kinds"]) == ("train", 10, {"colour": 10})
    assert index["pictures"] == {"seen": 10, "drawn": 0}
    assert len(index["shards"]) > 1 and index["bytes"] == sum(shard["bytes"] for shard in index["shards"])
    for shard in index["shards"]:
        data = (packed / shard["file"]).read_bytes()
        assert len(data) == shard["bytes"] and hashlib.sha256(data).hexdigest() == shard["sha256"]


def test_webdataset_reads_the_shards(packed: Path) -> None:
    shards = sorted(str(path) for path in packed.glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"r{i}" for i in range(10)]
    assert samples[3]["json"]["id"] == "r3" and samples[3]["0.png"].shape == (16, 16, 3)


def test_packing_twice_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    again = write_source(
        (asked(f"r{i}", f"Answer {i}") for i in range(10)), tmp_path / "again", split="train", shard_bytes=9000
    )
    assert again["shards"] == json.loads((packed / "index.json").read_text())["shards"]


def test_ids_with_dots_and_slashes_stay_whole(tmp_path: Path) -> None:
    write_source([asked("a/b.c.1"), asked("a/b.c.2")], tmp_path / "s", split="train")
    assert [record.id for record in ShardDataset(tmp_path / "s")] == ["a/b.c.1", "a/b.c.2"]


def test_very_long_ids_are_packed_too(tmp_path: Path) -> None:
    records = [asked("a"), asked("long-" * 40 + "1"), asked("ä" * 90), asked("b")]
    write_source(records, tmp_path / "s", split="train")
    assert list(ShardDataset(tmp_path / "s")) == records


def test_equal_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected ids that differ"):
        write_source([asked("a"), asked("a")], tmp_path / "s", split="train")


def test_a_picture_without_bytes_is_refused(tmp_path: Path) -> None:
    record = Record("a", "t", (Turn("user", (PicturePart("seen", "k"),)),))
    with pytest.raises(UserError, match=r"'a': picture 'k' has no bytes"):
        write_source([record], tmp_path / "s", split="train")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        build_folder(tmp_path / "data", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    build_folder(tmp_path / "data", lambda folder: folder.mkdir())
    build_folder(tmp_path / "data", lambda folder: pytest.fail("built again"))


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "first").write_text("")

    assert [path.name for path in build_folder(tmp_path / "data", write).iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"data: cannot be written .*No space left"):
        build_folder(tmp_path / "data", write)
    assert list(tmp_path.iterdir()) == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARGPT_CACHE", raising=False)
    assert cache_root() == Path.home() / ".cache" / "vargpt-lightning"
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "env"))
    assert cache_root() == tmp_path / "env"
    assert cache_root(tmp_path / "argument") == tmp_path / "argument"


def test_the_default_data_set(openmoji: Path) -> None:
    indexes = {path.name: json.loads((path / "index.json").read_text()) for path in openmoji.iterdir() if path.is_dir()}
    corpora = {
        f"{split}-{name}" for split in ("train", "val", "test") for name in ("questions", "drawings", "pictures")
    }
    assert set(indexes) == corpora | {"train-facts"}
    assert indexes["train-pictures"]["count"] == 235
    assert indexes["train-drawings"]["kinds"] == {"draw": 8 * 235}
    assert "name" not in indexes["val-questions"]["kinds"] and "name" in indexes["train-questions"]["kinds"]
    assert sum(index["bytes"] for index in indexes.values()) < 100 * 2**20
    listing = json.loads((openmoji / "pictures.json").read_text())
    assert len(listing) == 288 and set(listing[0]) >= {"codepoint", "name", "sha", "split", "colours"}


def test_no_held_out_picture_is_in_a_training_source(openmoji: Path) -> None:
    listing = json.loads((openmoji / "pictures.json").read_text())
    held_out = {each["sha"] for each in listing if each["split"] != "train"}
    for path in openmoji.glob("train-*"):
        assert not held_out & {part.key for record in ShardDataset(path) for part in record.pictures()}


def test_the_default_data_set_is_not_built_twice(openmoji: Path) -> None:
    before = (openmoji / "pictures.json").stat().st_mtime_ns
    assert build_openmoji(OpenMojiSettings(), openmoji.parent) == openmoji
    assert (openmoji / "pictures.json").stat().st_mtime_ns == before


def test_other_settings_are_another_folder() -> None:
    digests = {
        OpenMojiSettings().digest(),
        OpenMojiSettings(seed=1).digest(),
        OpenMojiSettings(picture_size=64).digest(),
        OpenMojiSettings(categories=("Flags",)).digest(),
        OpenMojiSettings(questions=QuestionCounts(choice=1)).digest(),
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture_size": 8}, "picture_size: 8; expected at least 16"),
        ({"drawings": 0}, "drawings: 0"),
        ({"categories": ("Anmals",)}, "'Anmals' is not one of"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OpenMojiSettings(**settings)


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")],
)
def test_pictures_are_stored_under_the_ending_of_their_content(kind: str, ending: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, kind)
    record = asked("a", data=buffer.getvalue())
    assert list(sample_members(record)) == ["json", f"0.{ending}"]
