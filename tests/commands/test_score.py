"""`vargpt score`: files of predictions and folders of outputs, scored without the model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_evaluate_benchmarks import Agrees, data, result, systems, write_benchmarks
from vargpt_lightning.cli import main
from vargpt_lightning.evaluation.harness.outputs import read_rows

__all__ = ["data", "systems"]  # fixtures
ROOT = Path(__file__).resolve().parents[2]


def predictions(file: Path, name: str, say: Callable[[Any], str], data: Path) -> Path:
    """A file with what `say` makes of each record of a benchmark."""
    from vargpt_lightning.evaluation import benchmarks

    module = benchmarks.get(name)
    rows = [{"id": module.record_id(row), "output": say(row)} for row in module.load(data / name, pictures=False)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def right(data: Path, tmp_path: Path) -> Path:
    """All answers of MME, with a full stop and small letters."""
    return predictions(tmp_path / "right.jsonl", "mme", lambda row: f"{row['answer'].lower()}.", data)


def score(*words: object) -> int:
    return main(["score", *map(str, words)])


def test_a_file_is_scored(data: Path, right: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--benchmark", "mme", "--data", data, "--out", tmp_path / "out", "--protocol", "lmms_eval,lenient"]
    assert score(right, *words) == 0
    found = result(tmp_path / "out", "mme")
    assert found["figures"]["perception"] == 2000 and found["model"] == "right" and found["digest"]
    assert result(tmp_path / "out", "mme", "lenient")["figures"]["cognition"] == 800
    assert "2000.0" in capsys.readouterr().out and (tmp_path / "out" / "index.html").is_file()


def test_another_file_of_the_same_name_is_scored_anew(data: Path, right: Path, tmp_path: Path) -> None:
    words = ["--benchmark", "mme", "--data", data, "--out", tmp_path / "out"]
    score(right, *words)
    predictions(right, "mme", lambda row: "no", data)
    assert score(right, *words) == 2
    assert result(tmp_path / "out", "mme")["figures"]["perception"] == 2000  # nothing is replaced without a word
    assert score(right, *words, "--replace") == 0
    assert result(tmp_path / "out", "mme")["figures"]["perception"] == 500


def test_another_systems_results_are_not_replaced(data: Path, right: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--benchmark", "mme", "--data", data]
    score(right, *words, "--out", tmp_path / "a")
    other = predictions(tmp_path / "other.jsonl", "mme", lambda row: "no", data)
    score(other, *words, "--out", tmp_path / "b")
    capsys.readouterr()
    assert score(other, *words, "--out", tmp_path / "a") == 2 and score(tmp_path / "b", "--out", tmp_path / "a") == 2
    said = capsys.readouterr().err
    assert all(each in said for each in ("right", "other", "--out", "--replace"))
    assert result(tmp_path / "a", "mme")["model"] == "right"
    assert score(right, *words, "--out", tmp_path / "a", "--style", "plain") == 2
    assert score(right, *words, "--out", tmp_path / "a", "--protocol", "official") == 0


def test_missing_and_unknown_ids_are_counted_and_refused(data: Path, right: Path, tmp_path: Path, capsys: Any) -> None:
    rows = right.read_text().splitlines(keepends=True)
    right.write_text("".join(rows[3:]) + '{"id": "nobody", "output": "no"}\n')
    words = ["--benchmark", "mme", "--data", data, "--out", tmp_path / "out"]
    assert score(right, *words) == 2
    said = capsys.readouterr().err
    assert "3" in said and "missing" in said and "unknown" in said
    assert score(right, *words, "--allow", "missing,unknown") == 0
    found = result(tmp_path / "out", "mme")
    assert found["asking"]["answers"] == {"missing": 3, "duplicate": 0, "unknown": 1}
    assert found["figures"]["empty"] == 3


def test_a_limit_takes_its_questions_out_of_a_whole_file(data: Path, right: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--benchmark", "mme", "--data", data, "--out", tmp_path / "out", "--limit", "4"]
    assert score(right, *words) == 0, capsys.readouterr().err
    found = result(tmp_path / "out", "mme")
    assert (found["asked"], found["total"], found["figures"]["empty"]) == (4, 28, 0)
    assert found["asking"]["answers"] == {"missing": 0, "duplicate": 0, "unknown": 0}


def test_a_folder_is_scored_by_other_rules_without_its_model(data: Path, systems: Any, tmp_path: Path) -> None:
    main(["evaluate", "some/m", "--benchmarks", "mme,pope", "--data", str(data), "--out", str(tmp_path)])
    asked = len(systems[0].asked)
    assert score(tmp_path, "--protocol", "official") == 0, "the data are where they were"
    assert result(tmp_path, "mme", "official")["digest"] == "agrees-1" and len(systems[0].asked) == asked
    assert score(tmp_path / "pope", "--protocol", "lenient", "--data", data, "--out", tmp_path / "other") == 0
    assert result(tmp_path / "other", "pope", "lenient")["figures"]["n"] == 6
    assert not (tmp_path / "pope/result.lenient.json").exists() and not (tmp_path / "other/mme").exists()
    assert len(list(read_rows(tmp_path / "other/pope/scores.lenient.jsonl"))) == 6


def test_missing_outputs_of_a_folder_are_refused(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    main(["evaluate", "some/m", "--benchmarks", "pope", "--data", str(data), "--out", str(tmp_path)])
    (file,) = (tmp_path / "pope/outputs").iterdir()
    file.write_text("".join(file.read_text().splitlines(keepends=True)[2:]))
    assert score(tmp_path) == 2
    assert "pope: 2 of 6 outputs are missing" in capsys.readouterr().err
    assert score(tmp_path, "--allow-partial") == 0
    assert result(tmp_path, "pope")["partial"] and result(tmp_path, "pope")["missing"] == 2


def test_data_that_are_gone_are_asked_for(data: Path, systems: Any, tmp_path: Path, capsys: Any) -> None:
    moved = write_benchmarks(tmp_path / "moved")
    main(["evaluate", "some/m", "--benchmarks", "pope", "--data", str(moved), "--out", str(tmp_path / "out")])
    moved.rename(tmp_path / "elsewhere")
    assert score(tmp_path / "out") == 2
    assert "expected --data DIR" in capsys.readouterr().err
    assert score(tmp_path / "out", "--data", tmp_path / "elsewhere") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("FILE --data DATA", "--benchmark is not given"),
        ("FILE --benchmark mme,pope --data DATA", "a file holds the answers to one"),
        ("FILE --benchmark mme", "--data DIR is not given"),
        ("none.jsonl --benchmark mme --data DATA", "none.jsonl"),
        ("DATA", "holds no outputs"),
        ("OUT --benchmark mme", "has outputs of pope"),
        ("OUT --limit 3", "--limit goes with a file of predictions"),
        ("OUT --protocol strict", "protocol: 'strict'"),
    ],
)
def test_mistakes_are_told(
    words: str, said: str, data: Path, right: Path, systems: list[Agrees], tmp_path: Path, capsys: Any
) -> None:
    main(["evaluate", "some/m", "--benchmarks", "pope", "--data", str(data), "--out", str(tmp_path / "out")])
    capsys.readouterr()
    for name, path in (("FILE", right), ("DATA", data), ("OUT", tmp_path / "out")):
        words = words.replace(name, str(path))
    assert score(*words.split()) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1


def test_scoring_needs_no_torch(data: Path, right: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from vargpt_lightning.cli import main\n"
        f"main(['score', {str(right)!r}, '--benchmark', 'mme', '--data', {str(data)!r}, '--out', {str(tmp_path)!r}])\n"
        "print({'torch', 'transformers', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
