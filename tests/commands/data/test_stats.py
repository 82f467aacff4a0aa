"""`vargpt data stats`: the table and the page say what was packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.data_reports.test_stats_page import packed
from vargpt_lightning.cli import main
from vargpt_lightning.data.packing import stats
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

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


TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message.role[0] + ':' + message.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}<s>a:{% endif %}"
)


def test_lengths_in_tokens(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole conversations, as the tokenizer's own chat template has them where there is one; one token a byte."""
    describe, tokens = stats.describe_folder, tmp_path / "tokens"
    TextTokenizer.train(["word"], 263).save(tokens)
    measured: list[list[int]] = []

    def describe_folder(folder: Path, measure: stats.Measure, **options: Any) -> Any:
        measured.append([measure(record) for record in ShardDataset(folder)])
        return describe(folder, measure=measure, **options)

    monkeypatch.setattr(stats, "describe_folder", describe_folder)
    words = ["data", "stats", str(packed), "--out", str(tmp_path / "s.html"), "--tokenizer", str(tokens)]
    assert main(words) == 0
    (tokens / "chat_template.jinja").write_text(TEMPLATE)
    assert main(words) == 0
    records = list(ShardDataset(packed))
    plain = [place for place, record in enumerate(records) if not record.pictures()]
    own = [sum(4 + len(turn.text.encode()) for turn in records[place].turns) for place in plain]
    assert [measured[1][place] for place in plain] == own != [measured[0][place] for place in plain]


def test_mistakes_are_one_line(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", str(tmp_path)]) == 2
    assert "index.json: not found" in capsys.readouterr().err
    (packed / "shard-000000.tar").unlink()
    assert main(["data", "stats", str(packed)]) == 2
    assert "shard-000000.tar: the shard is missing; `vargpt data check" in capsys.readouterr().err
