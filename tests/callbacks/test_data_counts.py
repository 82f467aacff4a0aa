"""What could not be used of a stream is counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning.callbacks.data_counts import DataCounts
from vargpt_lightning.runs.folder import StageFolder


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "01-one")


def batches(counts: DataCounts, *given: dict[str, int]) -> None:
    for place, batch in enumerate(given):
        counts.on_train_batch_end(None, None, None, batch, place)  # type: ignore[arg-type]


def test_counts_add_up_and_go_to_the_stages_record(folder: StageFolder, capsys: Any) -> None:
    counts = DataCounts(folder)
    batches(counts, {"skipped": 2, "cut": 0}, {"skipped": 1, "cut": 4}, {})
    counts.on_train_end(None, None)  # type: ignore[arg-type]
    assert (folder.record["skipped"], folder.record["cut"]) == (3, 4)
    said = capsys.readouterr().out
    assert "stage one: 3 records skipped (a picture that is none" in said and "4 cut to the context" in said


def test_a_stream_without_fault_is_not_spoken_of(folder: StageFolder, capsys: Any) -> None:
    counts = DataCounts(folder)
    batches(counts, {"skipped": 0, "cut": 0})
    counts.on_train_end(None, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "" and folder.record["skipped"] == 0


def test_counts_go_on_after_a_resume(folder: StageFolder) -> None:
    first, second = DataCounts(folder), DataCounts(folder)
    batches(first, {"skipped": 2, "cut": 1})
    second.load_state_dict(first.state_dict())
    batches(second, {"skipped": 1, "cut": 0})
    assert second.counts == {"skipped": 3, "cut": 1}
    assert first.counts == {"skipped": 2, "cut": 1}


def test_the_stages_share_of_padding_goes_to_its_record_and_outlives_a_resume(folder: StageFolder) -> None:
    first, second = DataCounts(folder), DataCounts(folder)
    batches(first, {"tokens": 30, "positions": 40})
    second.load_state_dict(first.state_dict())
    batches(second, {"tokens": 20, "positions": 60}, {})
    second.on_train_end(None, None)  # type: ignore[arg-type]
    assert folder.record["padding"] == 0.5
    assert "tokens" not in folder.record
