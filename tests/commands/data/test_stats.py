"""`vargpt data stats`: the table and the page say what was packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.cli import main
from vargpt_lightning.commands.data.stats import page, rows
from vargpt_lightning.data.packing.stats import describe_folder, evenly
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record, TextPart, Turn


def words_alone(name: str, count: int, source: str = "<words>") -> Record:
    return Record(name, source, (Turn("assistant", (TextPart(" ".join(["word"] * count)),)),))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Six questions, two drawings and four texts of another source."""
    records = [asked(f"q{number}", data=png("red", 20 + number)) for number in range(6)]
    records += [drawn("d0"), drawn("d1"), *(words_alone(f"w{number}", 10 * (number + 1)) for number in range(4))]
    write_source(records, tmp_path / "packed", split="train", shard_bytes=9000)
    return tmp_path / "packed"


def test_what_a_folder_is_made_of(packed: Path) -> None:
    found = describe_folder(packed)
    assert (found.count, found.looked_at, found.split) == (12, 12, "train")
    test, words = found.sources
    assert (test.name, test.count, dict(test.tasks)) == ("test", 8, {"understanding": 6, "generation": 2})
    assert (words.count, words.lengths, words.quantile(0.5)) == (4, {"text": [10, 20, 30, 40]}, 30)
    assert test.mean(test.seen) == 6 / 8 and test.mean(test.turns) == 2
    assert set(test.sizes) == {(20 + number, 20 + number) for number in range(6)} | {(16, 16)}


def test_a_sample_is_spread_over_the_folder(packed: Path) -> None:
    assert evenly(100, 4) == [0, 25, 50, 75] and evenly(3, 10) == [0, 1, 2] and evenly(0, 5) == []
    found = describe_folder(packed, limit=4)
    assert found.looked_at == 4 and sum(len(source.turns) for source in found.sources) == 4


def test_rows_add_up(packed: Path) -> None:
    test, words = rows([describe_folder(packed)])
    assert test["share"] + words["share"] == pytest.approx(1)
    assert test["tasks"] == {"understanding": 0.75, "generation": 0.25} and words["tasks"] == {"text": 1}


def test_the_page_is_whole_and_escaped(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plots = tmp_path / "stats.html", tmp_path / "plots"
    assert main(["data", "stats", str(packed), "--out", str(out), "--plots", str(plots)]) == 0
    said, text = capsys.readouterr().out, out.read_text()
    assert "understanding 75%" in said and f"page: {out}" in said
    assert "&lt;words&gt;" in text and "<words>" not in text
    assert text.count("data:image/png;base64,") == 4 and "http" not in text
    assert {path.name for path in plots.iterdir()} == {
        f"{n}.png" for n in ("composition", "lengths", "pictures", "sizes")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())


def test_several_folders_and_a_sample_are_said(packed: Path, tmp_path: Path) -> None:
    write_source([words_alone("x", 3, "test")], tmp_path / "other", split="val")
    folders = [describe_folder(packed, limit=5), describe_folder(tmp_path / "other")]
    text = page(folders, "words", {})
    assert "packed: tasks, lengths and sizes are of 5 records, evenly spread over 12" in text
    assert "other: tasks" not in text and "<td>val</td>" in text


def test_lengths_in_tokens(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

    TextTokenizer.train(["word"], 263).save(tmp_path / "tokens")
    assert main(["data", "stats", str(packed), "--out", str(tmp_path / "s.html"), "--tokenizer",
                 str(tmp_path / "tokens")]) == 0  # fmt: skip
    assert "tokens" in capsys.readouterr().out and "199" in (tmp_path / "s.html").read_text()


def test_mistakes_are_one_line(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(tmp_path)]) == 2
    assert "index.json: not found" in capsys.readouterr().err
    (packed / "shard-000000.tar").unlink()
    assert main(["data", "stats", str(packed)]) == 2
    assert "shard-000000.tar: the shard is missing; `vargpt data check" in capsys.readouterr().err
