"""`vargpt data show`: records token by token, with what is trained on and the pictures at the model's size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.data.conftest import asked, drawn
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.format import write_source


def test_the_page_of_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_corpora(tmp_path / "data")
    experiment = tiny.write_experiment(tmp_path / "tiny.yaml", tiny.tiny_tree(data, tmp_path))
    words = ["data", "show", data["train"]["questions"], "--for", str(experiment), "--out", str(tmp_path / "a.html")]
    assert main([*words, "--count", "4"]) == 0
    assert "4 of 9 records" in capsys.readouterr().out
    text = (tmp_path / "a.html").read_text()
    assert text.count("<article") == 4 and text.count("data:image/png") == 4 and "http" not in text
    assert 'width="16"' in text and "trained on" in text
    main([*words[:-1], str(tmp_path / "b.html"), "--count", "4"])
    assert (tmp_path / "b.html").read_text() == text
    main([*words[:-1], str(tmp_path / "c.html"), "--count", "4", "--seed", "1"])
    assert (tmp_path / "c.html").read_text() != text


def test_the_page_of_a_run(finished_run: Path, tmp_path: Path) -> None:
    write_source([asked("q<1>"), drawn("d")], tmp_path / "packed", split="train")
    out = tmp_path / "show.html"
    assert main(["data", "show", str(tmp_path / "packed"), "--for", str(finished_run), "--out", str(out)]) == 0
    assert "q&lt;1&gt;" in out.read_text() and "&lt;image_gen&gt; × 21" in out.read_text()


def test_mistakes_are_one_line(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_source([asked("q")], tmp_path / "packed", split="train")
    folder, run = str(tmp_path / "packed"), str(finished_run)
    for words, message in (
        ([folder, "--for", str(tmp_path / "none.yaml")], "none.yaml: not found; expected an experiment file or a run"),
        ([str(tmp_path / "none"), "--for", run], "index.json: not found"),
        ([folder, "--for", run, "--count", "0"], "--count: '0'; expected a whole number from 1"),
        ([folder, "--for", folder], "run.json is missing"),
    ):
        assert main(["data", "show", *words]) == 2
        assert message in capsys.readouterr().err
