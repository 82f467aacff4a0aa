"""`vargpt compare`: runs and files of predictions, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_evaluate_benchmarks import data, systems
from tests.commands.test_score import predictions
from tests.evaluation.compare.made import write_evaluation
from tests.evaluation.squares import png
from vargpt_lightning.cli import main
from vargpt_lightning.utils.files import write_jsonl

__all__ = ["data", "systems"]  # fixtures
ROOT = Path(__file__).resolve().parents[2]


def test_two_files_of_predictions_are_scored_and_compared(data: Path, tmp_path: Path, capsys: Any) -> None:
    files = [
        predictions(tmp_path / "right.jsonl", "mme", lambda row: row["answer"], data),
        predictions(tmp_path / "no.jsonl", "mme", lambda row: "no", data),
    ]
    words = ["compare", *map(str, files), "--benchmarks", "mme", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "mme, lmms_eval: no is worse than right by 50.0 points" in said
    single, whole = json.loads((tmp_path / "out" / "compare.json").read_text())["lines"]
    assert (single["n"], single["groups"], single["worse"], single["better"]) == (28, 14, 14, 0)
    assert (whole["base"], whole["other"], whole["p"]) == (1.0, 0.0, pytest.approx(2 / 2**14))
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("data:image/jpeg") == 8 and "Is it red?" in page
    assert main([*words[:-1], str(tmp_path / "other"), "--style", "plain", "--protocol", "official"]) == 0


def test_a_benchmark_of_a_file_is_compared_by_the_file(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    questions = [{"question": f"How many {n}?", "image": "a.png", "answer": str(n), "id": f"q{n}"} for n in range(12)]
    write_jsonl(tmp_path / "questions.jsonl", questions)
    columns = "{question: question, picture: image, answer: answer, id: id}"
    (tmp_path / "dots.yaml").write_text(f"name: dots\ndata: questions.jsonl\ncolumns: {columns}\nmetric: number\n")
    for name, wrong in (("one", 0), ("two", 6)):
        rows = [{"id": f"q{n}", "output": str(-1 if n < wrong else n)} for n in range(12)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    files = [str(tmp_path / f"{name}.jsonl") for name in ("one", "two")]
    out = ["--out", str(tmp_path / "out")]
    assert main(["compare", *files, "--benchmarks", str(tmp_path / "dots.yaml"), *out]) == 0
    assert "dots, exact: two is worse than one by 50.0 points" in capsys.readouterr().out
    assert (tmp_path / "out" / "compare.html").read_text().count("data:image/jpeg") == 6


def test_a_run_and_its_copy_do_not_differ(tmp_path: Path, capsys: Any) -> None:
    runs = [str(write_evaluation(tmp_path / name, [n % 2 == 0 for n in range(60)], [0] * 30)) for name in ("a", "b")]
    assert main(["compare", *runs, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in said[:3]] == [
        f"{title}: b is not told apart from a: +0.0 points"
        for title in ("questions, train", "questions, heldout", "drawings, train")
    ]
    assert len(said) == 4 and (tmp_path / "out" / "changed.jsonl").read_text() == ""


def test_wrong_words_are_refused(tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "there is no such run, folder or file" in capsys.readouterr().err
    assert main(["compare", "a", "b", "--allow", "promts"]) == 2
    assert "promts" in capsys.readouterr().err


def test_it_needs_no_torch() -> None:
    code = "import sys; from vargpt_lightning.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    words = ["compare", "nowhere", "nobody"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "no such run" in done.stderr
