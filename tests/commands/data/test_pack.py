"""`vargpt data` and `vargpt data pack`: what is typed becomes shards, or one line that says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import png
from vargpt_lightning.cli import main
from vargpt_lightning.commands.data import VERBS
from vargpt_lightning.data.shards.dataset import ShardDataset

ROOT = Path(__file__).resolve().parents[3]


def write_llava(folder: Path, count: int = 8) -> Path:
    """LLaVA-1.5's file with pictures, a row of words alone, and one whose picture is missing."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        said = [{"from": "human", "value": "<image>\nWhat colour?"}, {"from": "gpt", "value": "Red."}]
        rows.append({"id": str(number), "image": f"coco/{number}.png", "conversations": said})
        (folder / "images" / "coco").mkdir(parents=True, exist_ok=True)
        (folder / "images" / "coco" / f"{number}.png").write_bytes(png("red", 16 + number))
    words = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello!"}]
    rows.append({"id": "words", "conversations": words})
    rows.append({**rows[0], "id": "lost", "image": "coco/lost.png"})
    file = folder / "llava_v1_5_mix665k.json"
    file.write_text(json.dumps(rows))
    return file


def write_captions(folder: Path, count: int = 5) -> Path:
    """A folder of pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png("blue", 24))
        (folder / f"{number}.txt").write_text(f"A blue square, number {number}.")
    return folder


def test_llava_and_captions_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llava, captions = write_llava(tmp_path / "llava"), write_captions(tmp_path / "photos")
    spec = f"llava:{llava},pictures={tmp_path / 'llava' / 'images'}"
    out = tmp_path / "out"
    assert main(["data", "pack", spec, f"captions:{captions}", "--out", str(out), "--max-rejected", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "14 records" in said and "1 row rejected" in said and "1 shard\n" in said and "rejected.jsonl" in said
    records = list(ShardDataset(out))
    assert len(records) == 14 and sum(len(record.pictures("drawn")) for record in records) == 5
    assert records[0].pictures("seen")[0].data == png("red", 16)
    assert set(json.loads((out / "index.json").read_text())["sources"]) == {"llava", "captions"}
    assert main(["data", "check", str(out)]) == 0


def test_a_killed_command_goes_on(tmp_path: Path) -> None:
    """Killed as soon as a part is there, and then left alone."""
    captions = write_captions(tmp_path / "photos", 100)
    words = ["data", "pack", f"captions:{captions}", "--shard-mb", "0.05", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    out = tmp_path / "a" / "out"
    command = [sys.executable, "-m", "vargpt_lightning.cli", *words, str(out), "--processes", "2"]
    run = subprocess.Popen(command, cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while not list(out.glob(".packing/.part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and not (out / "index.json").exists()
    assert main([*words, str(out)]) == 0
    assert main([*words, str(tmp_path / "b" / "out")]) == 0
    files = [{p.name: p.read_bytes() for p in (tmp_path / name / "out").iterdir()} for name in ("a", "b")]
    assert files[0] == files[1] and len(files[0]) > 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "lava:x", "--out", "o"], "source: 'lava'; there are "),
        (["pack", "llava:nothing.json", "--out", "o"], "nothing.json: not found"),
        (["pack", "captions:.,us=seen", "--out", "o"], "captions: 'us' is not an option; there are use, seed"),
        (["pick"], "write-instructions; did you mean 'pack'?"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 2
    assert main(["data", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {verb}  " in said for verb in VERBS)


@pytest.mark.parametrize("verb", ["pack", "check", "show", "stats"])
def test_a_verbs_help_has_an_example_and_no_torch(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", verb, "--help"]) == 0
    assert f"  vargpt data {verb} " in capsys.readouterr().out.partition("example")[2]
    code = f"import sys; from vargpt_lightning.cli import main; main(['data', {verb!r}, '--help'])\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60).returncode == 0


def test_what_is_left_out_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_captions(tmp_path / "photos")
    (photos / "0.png").rename(photos / "0.HEIC")
    (photos / "1.png").rename(photos / "1.Png")
    for name in ("notes.md", "alone.txt", "1.gif"):
        (photos / name).write_bytes(b"x")
    assert main(["data", "pack", f"captions:{photos}", "--out", str(tmp_path / "out"), "--max-rejected", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "4 records" in said and "1 rejected for a picture of a kind that is not read (.heic)" in said
    assert "3 files not used" in said and all(f".{ending} 1" in said for ending in ("gif", "md", "txt"))
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["left_out"] == {"captions": {".gif": 1, ".md": 1, ".txt": 1}}


def test_the_first_error_names_the_option_that_allows_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_captions(tmp_path / "photos")
    (photos / "0.txt").unlink()
    assert main(["data", "pack", f"captions:{photos}", "--out", str(tmp_path / "out")]) == 2
    assert "--max-rejected" in capsys.readouterr().err
