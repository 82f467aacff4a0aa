from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.commands.runs import duration, main
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json


def test_the_table_says_how_far_each_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = RunFolder.start(tmp_path / "a" / "done")
    headline = [{"name": name, "text": text} for name, text in [("identified", "53.1 %"), *[(c, "1 %") for c in "xyz"]]]
    done.stage(1, "pretrain").update(status="finished")
    done.add_duration("pretrain", 754.0)
    write_json(done.evaluation / "metrics.json", {"headline": headline})
    done.end("finished")
    RunFolder.start(tmp_path / "[red]odd").end("failed")
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [word.strip() for word in lines[0].split("  ") if word] == [
        "run",
        "status",
        "stage",
        "started",
        "time",
        "identified",
        "x",
        "y",
    ]
    first = next(line for line in lines if "done" in line)
    assert all(text in first for text in ("finished", "pretrain (1/1)", "13 min", "53.1 %"))
    assert "failed" in next(line for line in lines if "[red]odd" in line)


def test_a_folder_without_runs_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert "vargpt fit" in capsys.readouterr().out


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "nowhere")])


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (4.2, 100, 5300, 5400, 11100)] == [
        "4 s", "2 min", "88 min", "1 h 30 min", "3 h 05 min"
    ]  # fmt: skip


def test_a_run_with_a_broken_stage_is_left_out_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "bad"):
        RunFolder.start(tmp_path / name).stage(1, "tokenizer").update(status="finished")
    (tmp_path / "bad" / "stages" / "01-tokenizer" / "stage.json").write_text("[" * 100_000)
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "good" in said.out and "bad" not in said.out.replace(str(tmp_path), "")
    assert said.err.startswith("left out: ") and said.err.count("\n") == 1 and "stage.json is not readable" in said.err
