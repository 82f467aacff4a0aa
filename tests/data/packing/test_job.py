"""Packing: the same bytes by any number of processes and after any kill, bad rows listed, inputs written down."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data import fake_source
from tests.data.conftest import png
from vargpt_lightning.data import sources
from vargpt_lightning.data.packing import job as pack_job
from vargpt_lightning.data.packing.job import SourceSpec, pack
from vargpt_lightning.data.packing.state import locked
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("seen", "text", "drawn", "seen")
SHARD = 30_000


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "get", lambda name: fake_source)


def rows(path: Path, count: int = 60, **changes: str) -> Path:
    """A file of rows; `changes` puts another line in the place of one, as `_12="name kind"`."""
    lines = [changes.get(f"_{i}", f"r/{i} {KINDS[i % len(KINDS)]}") for i in range(count)]
    path.write_text("\n".join(lines))
    return path


def packed(path: Path, out: Path, **options: Any) -> dict[str, Any]:
    return pack([SourceSpec("fake", path)], out, **{"shard_bytes": SHARD, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_packing_equals_writing_one_record_after_the_other(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows")
    packed(path, tmp_path / "out")
    write_source((row for row in fake_source.read(path) if isinstance(row, Record)), tmp_path / "plain", split="train",
                 shard_bytes=SHARD)  # fmt: skip
    ours, plain = content(tmp_path / "out"), content(tmp_path / "plain")
    shards = [name for name in plain if name.endswith(".tar")]
    assert len(shards) > 3
    assert {name: ours[name] for name in [*shards, "offsets.json"]} == {
        name: plain[name] for name in [*shards, "offsets.json"]
    }
    assert [record.id for record in ShardDataset(tmp_path / "out")] == [f"r/{i}" for i in range(60)]


def test_three_processes_write_the_bytes_of_one(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", _8="r/1 seen", _20="x bad")
    packed(path, tmp_path / "a" / "out", processes=1)
    packed(path, tmp_path / "b" / "out", processes=3)
    assert content(tmp_path / "a" / "out") == content(tmp_path / "b" / "out")


KILLED = """
import sys
from pathlib import Path
from tests.data import fake_source
from vargpt_lightning.data import sources
from vargpt_lightning.data.packing.job import SourceSpec, pack
if __name__ == "__main__":
    sources.get = lambda name: fake_source
    pack([SourceSpec("fake", Path(sys.argv[1]))], Path(sys.argv[2]), shard_bytes=30_000, processes=int(sys.argv[3]))
"""


def start(script: Path, path: Path, out: Path, processes: int) -> subprocess.Popen[bytes]:
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FAKE_SECONDS": "0.02", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(script), str(path), str(out), str(processes)], env=environment)


def children(pid: int) -> list[int]:
    """The processes below one."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def gone(pids: list[int]) -> bool:
    import psutil

    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, processes: int) -> None:
    path, out = rows(tmp_path / "rows", _8="r/1 seen", _20="x bad", _41="r/1 drawn"), tmp_path / "killed" / "out"
    run = start(tmp_path / "pack.py", path, out, processes)
    deadline = time.monotonic() + 60
    while len(list(out.glob("shard-*.tar"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    below = children(run.pid)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    before = {file.name: file.stat().st_mtime_ns for file in sorted(out.glob("shard-*.tar"))}
    assert len(before) >= 2 and not (out / "index.json").exists()
    while not gone(below) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(below), "the processes of a killed run end"
    packed(path, out)
    packed(path, tmp_path / "unbroken" / "out")
    assert content(out) == content(tmp_path / "unbroken" / "out")
    before.popitem()  # the kill may have come between the last shard and the note that it is finished
    assert all((out / name).stat().st_mtime_ns == then for name, then in before.items()), "finished shards are kept"


@pytest.mark.parametrize("write", range(1, 60, 4))
def test_a_run_stopped_at_any_write_goes_on(tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rename is a step that may be the last: the run is stopped before and after each fourth of them."""
    path = rows(tmp_path / "rows", _8="r/1 seen", _20="x bad")
    packed(path, tmp_path / "unbroken" / "out")
    real, done = os.replace, [0]

    def stop(old: Any, new: Any) -> None:
        done[0] += 1
        if done[0] == write and write % 8 == 1:
            raise KeyboardInterrupt
        real(old, new)
        if done[0] == write:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    out = tmp_path / "stopped" / "out"
    try:
        packed(path, out)
    except KeyboardInterrupt:
        monkeypatch.setattr(os, "replace", real)
        packed(path, out)
    else:
        assert done[0] < write
    assert content(out) == content(tmp_path / "unbroken" / "out")


def interrupted(path: Path, out: Path, shards: int = 3) -> None:
    """Pack until some shards are finished."""

    def stop(done: int, total: int, kept: int, rejected: int) -> None:
        if len(list(out.glob("shard-*.tar"))) >= shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(path, out, watch=stop)


def test_a_shard_that_vanished_since_is_made_again(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows"), tmp_path / "a" / "out"
    interrupted(path, out)
    (out / "shard-000001.tar").unlink()
    packed(path, out)
    packed(path, tmp_path / "b" / "out")
    assert content(out) == content(tmp_path / "b" / "out")


def test_other_inputs_or_settings_are_another_job(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows"), tmp_path / "out"
    interrupted(path, out)
    with pytest.raises(UserError, match="begun with split 'train', now 'val'"):
        packed(path, out, split="val")
    rows(path, 61)
    with pytest.raises(UserError, match="its inputs"):
        packed(path, out)


def test_another_input_of_the_same_size_is_known_by_its_hash(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows"), tmp_path / "out"
    packed(path, out)
    path.write_text(path.read_text().replace("seen", "text"))
    with pytest.raises(UserError, match="its inputs"):
        packed(path, out)
    plain = packed(path, tmp_path / "plain", hashes=False)
    assert "sha256" not in plain["manifest"]["inputs"][0]["files"][0]


def test_each_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.data.packing import pictures as pack_pictures
    from vargpt_lightning.data.sources import captions

    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png("red", 20 + number))
        (tmp_path / f"{number}.txt").write_text("Red.")
    decoded: list[str] = []

    def decode(data: bytes, name: str, max_pixels: int) -> Image.Image:
        decoded.append(name)
        return Image.open(io.BytesIO(data)).convert("RGB")

    monkeypatch.setattr(pack_pictures, "decode_picture", decode)
    monkeypatch.setattr("vargpt_lightning.data.sources.base.decode_picture", decode)
    monkeypatch.setattr(sources, "get", lambda name: captions)
    pack([SourceSpec("captions", tmp_path, options={"use": "both"})], tmp_path / "out", resize=21)
    assert len(decoded) == 3
    sizes = [Image.open(io.BytesIO(p.data or b"")).size for r in ShardDataset(tmp_path / "out") for p in r.pictures()]
    assert sorted(sizes) == [(20, 20), (21, 21), (21, 21)]


def test_what_is_packed_is_not_packed_again(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows"), tmp_path / "out"
    index = packed(path, out)
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert packed(path, out, processes=2, max_rejected_share=0.5) == index
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    with pytest.raises(UserError, match="begun with resize None, now 8"):
        packed(path, out, resize=8)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt already"):
        packed(rows(tmp_path / "rows"), tmp_path / "out")


def test_who_waited_for_a_folder_that_was_cleared_away_holds_the_next_one(tmp_path: Path) -> None:
    held, ended = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(tmp_path / "work", wait=True):
            held.set()
            ended.wait(30)

    waiter = threading.Thread(target=wait)
    with locked(tmp_path / "work"):
        waiter.start()
        assert not held.wait(0.3), "it has the lock's file open by now"
        shutil.rmtree(tmp_path / "work")
    try:
        assert held.wait(30)
        with pytest.raises(UserError, match="another process is packing"), locked(tmp_path / "work"):
            pass
    finally:
        ended.set()
        waiter.join()


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "out" / ".packing"), pytest.raises(UserError, match="another process is packing"):
        packed(rows(tmp_path / "rows"), tmp_path / "out")


def test_the_index_says_what_is_there(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows", _8="r/1 seen", _20="x bad"), tmp_path / "out"
    index = packed(path, out, split="val", seed=3)
    assert index == json.loads((out / "index.json").read_text())
    assert (index["count"], index["split"], index["name"], index["rejected"], index["renamed"]) == (
        59,
        "val",
        "out",
        1,
        1,
    )
    records = list(ShardDataset(out))
    found = index["sources"]["fake"]
    assert found["count"] == 59 and found["rejected"] == 1
    assert found["seen"] == sum(len(record.pictures("seen")) for record in records) == index["pictures"]["seen"]
    assert found["characters"] == sum(len(text) for record in records for text in record.texts())
    assert found["picture_bytes"] == sum(len(p.data or b"") for record in records for p in record.pictures())
    assert found["text_only"] == sum(not record.pictures() for record in records)
    (entry,) = index["manifest"]["inputs"]
    assert entry == {"source": "fake", "path": str(path), "pictures": None, "options": {},
                     "files": [{"path": str(path), "bytes": path.stat().st_size,
                                "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]}  # fmt: skip
    assert index["manifest"]["settings"]["seed"] == 3


def test_bad_rows_are_listed_in_order(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", _3="a bad", _30="b surrogate", _59="c bad")
    packed(path, tmp_path / "out")
    listed = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in listed] == ["a", "b", "c"]
    assert listed[0] == {"id": "a", "source": "fake", "reason": "a.jpg: no bytes"}
    assert "UTF-8 cannot hold" in listed[1]["reason"]


def test_too_many_bad_rows_stop_the_run_and_a_larger_share_goes_on(tmp_path: Path) -> None:
    path, out = rows(tmp_path / "rows", **{f"_{i}": f"b{i} bad" for i in range(6)}), tmp_path / "out"
    with pytest.raises(
        UserError, match=r"6 of 60 rows rejected \(10\.0%\), more than 5\.0%; .*b0\.jpg: no bytes.*max-rejected"
    ):
        packed(path, out)
    assert len((out / "rejected.jsonl").read_text().splitlines()) == 6 and not (out / "index.json").exists()
    assert packed(path, out, max_rejected_share=0.1)["count"] == 54


def test_a_long_run_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_job, "ENOUGH_ROWS", 40)
    path = rows(tmp_path / "rows", 200, **{f"_{i}": f"b{i} bad" for i in range(0, 200, 5)})
    done: list[int] = []
    with pytest.raises(UserError, match="rows rejected"):
        packed(path, tmp_path / "out", watch=lambda part, total, kept, rejected: done.append(kept + rejected))
    assert 40 <= done[-1] < 50


def test_nothing_but_bad_rows(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", 2, _0="a bad", _1="b bad")
    with pytest.raises(UserError, match=r"gave no record; .*a\.jpg: no bytes"):
        packed(path, tmp_path / "out", max_rejected_share=1)


def test_ids_that_were_there_before_get_a_number(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", 6, _1="r/0 drawn", _3="r/0-2 text", _4="r_0 seen", _5="r/0 text")
    assert packed(path, tmp_path / "out")["renamed"] == 4
    records = list(ShardDataset(tmp_path / "out"))
    assert [record.id for record in records] == ["r/0", "r/0-2", "r/2", "r/0-2-2", "r_0-3", "r/0-4"]
    assert records[1].pictures("drawn")[0].data and records[4].pictures("seen")[0].data


def test_ids_that_were_there_before_can_be_refused(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", 40, _33="r/0 drawn")
    assert packed(path, tmp_path / "out", duplicates="reject")["rejected"] == 1
    assert "duplicate id" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_ids_cannot_name_members_outside(tmp_path: Path) -> None:
    import tarfile

    packed(rows(tmp_path / "rows", 2, _0="../../etc/x seen", _1="/root/y seen"), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as archive:
        names = archive.getnames()
    assert len(names) == 4 and not any(".." in name or name.startswith("/") or "/" in name for name in names)


def test_pictures_keep_their_bytes_unless_made_smaller(tmp_path: Path) -> None:
    spec = SourceSpec("fake", rows(tmp_path / "rows", 8), options={"size": 40})
    before = [p.data for row in fake_source.read(spec.path, size=40) for p in row.pictures()]  # type: ignore[union-attr]
    pack([spec], tmp_path / "own")
    assert [p.data for record in ShardDataset(tmp_path / "own") for p in record.pictures()] == before
    pack([spec], tmp_path / "same", resize=40)
    assert [p.data for record in ShardDataset(tmp_path / "same") for p in record.pictures()] == before
    pack([spec], tmp_path / "small", resize=12)
    sizes = {Image.open(io.BytesIO(p.data or b"")).size for r in ShardDataset(tmp_path / "small") for p in r.pictures()}
    assert sizes == {(12, 12)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_bytes": 0}, "shard bytes: 0"),
        ({"processes": 0}, "processes: 0"),
        ({"resize": 0}, "resize: 0"),
        ({"max_rejected_share": 1.5}, "max rejected share: 1.5"),
        ({"duplicates": "keep"}, "duplicates: 'keep'"),
    ],
)
def test_bad_settings(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        packed(rows(tmp_path / "rows", 2), tmp_path / "out", **options)


def test_an_unknown_option_names_those_there_are(tmp_path: Path) -> None:
    spec = SourceSpec("fake", rows(tmp_path / "rows", 2), options={"sise": 1})
    with pytest.raises(UserError, match="fake: 'sise' is not an option; there are seed, size"):
        pack([spec], tmp_path / "out")


def test_a_process_that_dies_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    path = rows(tmp_path / "rows", _30="die seen")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="a process that was packing died"):
        packed(path, out, processes=2)
    assert packed(path, out)["count"] == 60


def test_what_a_process_raises_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rows: line 31 is broken"):
        packed(rows(tmp_path / "rows", _30="x broken"), tmp_path / "out", processes=2)
