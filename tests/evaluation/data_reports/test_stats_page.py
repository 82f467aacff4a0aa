"""What packed folders are made of, as rows and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import asked, drawn, png
from vargpt_lightning.data.packing.stats import describe_folder
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.evaluation.data_reports.stats_page import page, rows


def words_alone(name: str, count: int, source: str = "<words>") -> Record:
    return Record(name, source, (Turn("assistant", (TextPart(" ".join(["word"] * count)),)),))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Six questions, two drawings and four texts of another source."""
    records = [asked(f"q{number}", data=png("red", 20 + number)) for number in range(6)]
    records += [drawn("d0"), drawn("d1"), *(words_alone(f"w{number}", 10 * (number + 1)) for number in range(4))]
    write_source(records, tmp_path / "packed", split="train", shard_bytes=9000)
    return tmp_path / "packed"


def test_rows_add_up(packed: Path) -> None:
    test, words = rows([describe_folder(packed)])
    assert test["share"] + words["share"] == pytest.approx(1)
    assert test["tasks"] == {"understanding": 0.75, "generation": 0.25} and words["tasks"] == {"text": 1}


def test_several_folders_and_a_sample_are_said(packed: Path, tmp_path: Path) -> None:
    write_source([words_alone("x", 3, "test")], tmp_path / "other", split="val")
    folders = [describe_folder(packed, limit=5), describe_folder(tmp_path / "other")]
    text = page(folders, "words", {})
    assert "packed: tasks, lengths and sizes are of 5 records, evenly spread over 12" in text
    assert "other: tasks" not in text and "<td>val</td>" in text
