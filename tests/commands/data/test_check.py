"""`vargpt data check`: each kind of damage is named, and the exit code is 2."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.cli import main
from vargpt_lightning.data.packing.parts import encode_sample
from vargpt_lightning.data.shards.format import sample_members, write_source


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Twelve records in three shards."""
    records = [(asked if number % 2 else drawn)(f"r{number}") for number in range(12)]
    write_source(records, tmp_path / "packed", split="train", shard_bytes=9000)
    return tmp_path / "packed"


def change_index(folder: Path, change: Callable[[dict], None]) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def rewrite(folder: Path, members: list[tuple[str, bytes]]) -> None:
    """Put other members into the first shard, and let size and hash agree with it."""
    import hashlib

    with tarfile.open(folder / "shard-000000.tar", "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = (folder / "shard-000000.tar").read_bytes()
    change_index(
        folder, lambda index: index["shards"][0].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    )


def problems(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["data", "check", str(folder), *options]) == 2
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith((" problem", " problems"))
    return said


def test_what_is_whole_passes(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(packed.glob("*.tar"))) == 3
    assert main(["data", "check", str(packed)]) == 0
    assert capsys.readouterr().out == f"{packed}: complete, as packed\n"


def test_processes_find_the_same(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    assert problems(packed, capsys) == problems(packed, capsys, "--no-decode", "--processes", "2")


def test_a_truncated_shard(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    said = problems(packed, capsys)
    assert "shard-000001.tar: 3000 bytes, the index expects" in said and "no whole tar archive" in said
    assert "shard-000000" not in said


def test_a_shard_that_vanished(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (packed / "shard-000002.tar").unlink()
    said = problems(packed, capsys)
    assert "shard-000002.tar: the shard is missing" in said and "index.json: says 12 records, the shards hold" in said


def test_a_flipped_bit(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = problems(packed, capsys)
    assert "shard-000000.tar: sha256" in said and said.count("\n") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(count=13), "says 13 records, the shards hold 12"),
        (lambda index: index["pictures"].update(drawn=1), "says 1 drawn pictures, the shards hold 6"),
        (lambda index: index["shards"][0].update(count=1), "records, the index expects 1"),
        (lambda index: index.update(bytes=1), "says 1 bytes"),
        (lambda index: index["shards"].pop(), "shard-000002.tar: a shard that the index does not name"),
        (lambda index: index.update(rejected=2), "rejected.jsonl: 0 rows, the index says 2"),
        (lambda index: index["shards"][0].update(file="../x.tar"), "../x.tar: the shard is missing"),
    ],
)
def test_an_index_that_disagrees(packed: Path, change: Callable, message: str, capsys) -> None:
    change_index(packed, change)
    assert message in problems(packed, capsys)


def test_offsets_that_disagree(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offsets = json.loads((packed / "offsets.json").read_text())
    offsets[1][1][0] += 512
    (packed / "offsets.json").write_text(json.dumps(offsets))
    assert "offsets.json disagrees with the shard from record 1 on" in problems(packed, capsys)
    (packed / "offsets.json").write_text("[")
    assert "offsets.json: missing or no JSON" in problems(packed, capsys)


def members(*records) -> list[tuple[str, bytes]]:
    return [(f"{record.id}.{end}", data) for record in records for end, data in sample_members(record).items()]


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a/../../evil.json"])
def test_members_outside_of_the_folder(packed: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(packed, [*members(asked("a")), (name, b"{}")])
    assert f"member {name!r} is no file inside the folder" in problems(packed, capsys)


def test_a_link_is_no_member(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(packed / "shard-000000.tar", "w") as archive:
        info = tarfile.TarInfo("a.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert "member 'a.json' is no file inside the folder" in problems(packed, capsys)


def test_records_that_do_not_parse(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(packed, [("a.json", b"{"), ("b.0.png", png()), ("c.json", b'{"id": "c"}'), ("d.json", b"[]")])
    said = problems(packed, capsys)
    for sample in "abcd":
        assert f"sample '{sample}'" in said
    assert "has no .json; it has 0.png" in said


def test_a_picture_too_few(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(packed, [member for member in members(asked("a")) if member[0].endswith("json")])
    assert "0 pictures given, its turns ask for 1" in problems(packed, capsys)


def test_pictures_that_do_not_decode(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = png("red", 64)[:-40]
    rewrite(packed, members(asked("a", data=broken), asked("b", data=b"GIF8 but not really")))
    said = problems(packed, capsys)
    assert "sample 'a': picture 'a'" in said and "sample 'b': picture 'b'" in said
    assert "picture 'a'" not in problems(packed, capsys, "--no-decode")


def test_an_id_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [asked("a"), asked("b"), asked("a")]
    write_source(records, tmp_path / "packed", split="train", shard_bytes=1)
    assert "shard-000002.tar: id 'a' is in shard-000000.tar already" in problems(tmp_path / "packed", capsys)


def test_no_folder_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "index.json: not found; expected a folder of packed records" in capsys.readouterr().err
    (tmp_path / "index.json").write_text('{"count": 1}')
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "expected an index written by packing" in capsys.readouterr().err


def test_samples_are_encoded_as_they_are_checked() -> None:
    content, places = encode_sample("k", sample_members(asked("a")))
    assert content[places[1][0] :][: places[1][1]] == png() and len(content) % 512 == 0
