"""`vargpt data stats`: the table and the page say what was packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.data_reports.test_stats_page import packed
from vargpt_lightning.cli import main

__all__ = ["packed"]  # a fixture


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
