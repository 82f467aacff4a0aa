"""`vargpt data` with a file where a folder belongs, the other way round, and paths from home: one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import png
from vargpt_lightning.cli import main
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_file, output_folder, user_path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VARGPT_CACHE", "cache")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.png").write_bytes(png("blue", 24))
    (tmp_path / "photos/0.txt").write_text("A blue square.")
    (tmp_path / "file").write_text("hello")
    (tmp_path / "pic.jpg").write_bytes(png("red", 8))
    return tmp_path


@pytest.mark.parametrize("source", ["captions", "imagenet", "llava", "onevision", "sharegpt", "vargpt_instruct"])
@pytest.mark.parametrize("path", ["file", "pic.jpg", "file/x"])
def test_a_file_of_another_kind_is_no_corpus(
    place: Path, capsys: pytest.CaptureFixture[str], source: str, path: str
) -> None:
    assert main(["data", "pack", f"{source}:{path}", "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and path in told and "expected" in told


@pytest.mark.parametrize("words", ["check file", "stats file", "show file --for x", "tokenize file --tokenizer x"])
def test_a_file_is_no_packed_folder(place: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main(["data", *words.split()]) == 2
    assert "file: is a file; expected a folder of packed records" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["pack captions:photos --out file", "pack captions:photos --out file/x"])
def test_a_file_is_no_folder_to_write(place: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main(["data", *words.split()]) == 2
    assert "file is a file; expected a folder" in capsys.readouterr().err


def test_places_to_write_are_looked_at_first(place: Path) -> None:
    assert output_file(Path("new/x.html")) == Path("new/x.html") and output_folder(Path("photos"))
    with pytest.raises(UserError, match="photos: is a folder; expected a file"):
        output_file(Path("photos"))
    for path in ("file/x.html", "file/a/x.html"):
        with pytest.raises(UserError, match="file is a file"):
            output_file(Path(path))


@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/y", "/proc"])
def test_a_folder_that_takes_nothing_is_no_place_to_write(path: str) -> None:
    with pytest.raises(UserError, match=f"^{path}: nothing can be written to /proc .*expected another folder"):
        output_folder(Path(path))


def test_looking_at_a_place_to_write_leaves_nothing(tmp_path: Path) -> None:
    output_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_relative_cache_and_paths_from_home(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", "captions:~/photos", "--out=~/out"]) == 0
    assert main(["data", "check", "~/out"]) == 0 and (place / "out/index.json").is_file()
    assert user_path("~/x") == place / "x"
    assert len(ShardDataset("~/out")) == len(Packed(train={"a": "~/out"}).open("train")["a"]) == 1
    with pytest.raises(UserError, match="expected a path"):
        user_path("~nobody-of-this-name/x")


@pytest.mark.parametrize(
    ("option", "words"),
    [("seed=x", "a whole number"), ("use=3", "drawn, seen, both"), ("split=3", "no split '3'"), ("take=1", "all, one")],
)
def test_options_of_another_type_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], option: str, words: str
) -> None:
    assert main(["data", "pack", f"captions:photos,{option}", "--out", "out"]) == 2
    assert words in capsys.readouterr().err


def test_numbers_that_are_none_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in ("nan", "inf"):
        assert main(["data", "pack", "captions:photos", "--out", "out", "--shard-mb", size]) == 2
        assert f"--shard-mb: '{size}'; expected a number above 0" in capsys.readouterr().err
    assert main(["data", "check", "photos", "--processes", "0"]) == 2
    assert "--processes: '0'; expected a whole number from 1" in capsys.readouterr().err
