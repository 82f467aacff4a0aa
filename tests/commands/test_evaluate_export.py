"""Questions for systems elsewhere, and answers as other projects write them: there and back."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.commands.test_evaluate_benchmarks import result, write_benchmarks
from vargpt_lightning.cli import main
from vargpt_lightning.evaluation import benchmarks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("limit", [None, 4])
def test_what_is_exported_can_be_answered_and_scored(data: Path, tmp_path: Path, limit: int | None) -> None:
    more = [] if limit is None else ["--limit", limit]
    assert run("evaluate", "export", "--benchmarks", "mme,pope", "--data", data, "--out", tmp_path / "q", *more) == 0
    for name, count in (("mme", 28), ("pope", 6)):
        folder = tmp_path / "q" / name
        asked = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
        assert len(asked) == (limit or count) and all(len(row["images"]) == 1 for row in asked)
        with Image.open(folder / asked[0]["images"][0]) as picture:
            assert picture.convert("RGB").getpixel((1, 1)) == (255, 0, 0)
        assert len(list((folder / "images").iterdir())) == 1
        said = [{"id": row["id"], "output": "No" if "blue" in row["prompt"] else "Yes"} for row in asked]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
        words = ["--benchmark", name, "--data", data, "--out", tmp_path / "out", *more]
        assert run("score", tmp_path / f"{name}.jsonl", *words) == 0
        found = result(tmp_path / "out", name)
        assert found["asked"] == len(asked) and found["missing"] == 0
    assert result(tmp_path / "out", "pope")["figures"]["accuracy"] == 1.0
    assert run("evaluate", "export", "--benchmarks", "pope", "--data", data, "--out", tmp_path / "q") == 2


@pytest.mark.parametrize(
    ("out", "told"), [("/dev/null/x", "/dev/null is a file"), ("/proc/x", "nothing can be written to /proc")]
)
def test_a_place_that_takes_no_folder_is_told_in_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], out: str, told: str
) -> None:
    assert run("evaluate", "export", "--benchmarks", "pope", "--data", data, "--out", out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error
    assert run("evaluate", "export", "--benchmrks", "pope", "--out", out) == 2
    assert capsys.readouterr().err.startswith("vargpt: error: ")


def records(data: Path, name: str) -> list[dict[str, Any]]:
    return list(benchmarks.get(name).load(data / name, pictures=False))


def reply(row: dict[str, Any]) -> str:
    return "No" if "blue" in row["question"] else "Yes"


def xlsx(path: Path, rows: list[dict[str, Any]]) -> None:
    """A workbook as pandas writes one: texts in a list of their own, numbers in the cells."""
    texts: list[str] = []

    def cell(place: str, value: Any) -> str:
        if isinstance(value, int):
            return f'<c r="{place}"><v>{value}</v></c>'
        texts.append(str(value).replace("&", "&amp;").replace("<", "&lt;"))
        return f'<c r="{place}" t="s"><v>{len(texts) - 1}</v></c>'

    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    body = "".join(
        f'<row r="{number}">'
        + "".join(cell(f"{chr(65 + n)}{number}", value) for n, value in enumerate(line))
        + "</row>"
        for number, line in enumerate(lines, 1)
    )
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>")
        items = "".join(f"<si><t>{text}</t></si>" for text in texts)
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{items}</sst>")


def foreign(form: str, name: str, rows: list[dict[str, Any]], file: Path) -> Path:
    """A file of answers as a project writes it."""
    if form == "llava":
        tail = "\nAnswer the question using a single word or phrase."
        made = [
            {"question_id": row["question_id"], "category": row["category"], "prompt": row["question"] + tail,
             "text": reply(row), "answer_id": "x", "model_id": "m", "metadata": {}} for row in rows
        ]  # fmt: skip
        lines = [json.dumps({key: row[key] for key in row if key != "category" or name == "pope"}) for row in made]
    elif form == "lmms_eval":
        lines = [
            json.dumps({"doc_id": n, "doc": row, "target": row["answer"], "resps": [[reply(row)]],
                        "filtered_resps": [reply(row)], "mme_perception_score": {}}) for n, row in enumerate(rows)
        ]  # fmt: skip
    elif form == "lmms_eval_without_doc":
        made = [{"doc_id": n, "target": row["answer"], "filtered_resps": [reply(row)]} for n, row in enumerate(rows)]
        lines = [json.dumps(row) for row in reversed(made)]
    else:
        made = [
            {"index": 1000 + n, "id": row["question_id"], "image_path": row["question_id"], "category": row["category"],
             "question": row["question"], "answer": row["answer"], "prediction": reply(row)}
            for n, row in enumerate(rows)
        ]  # fmt: skip
        if file.suffix == ".xlsx":
            xlsx(file, made)
        else:
            with open(file, "w", newline="") as out:
                writer = csv.DictWriter(out, list(made[0]), delimiter="\t")
                writer.writeheader()
                writer.writerows(made)
        return file
    file.write_text("\n".join(lines))
    return file


FORMS = {"llava": "a.jsonl", "lmms_eval": "samples_x.jsonl", "lmms_eval_without_doc": "s.jsonl", "vlm_xlsx": "m.xlsx",
         "vlm_tsv": "m.tsv"}  # fmt: skip


@pytest.mark.parametrize("name", ["mme", "pope"])
@pytest.mark.parametrize("form", FORMS)
def test_other_projects_files_are_read_as_they_are(data: Path, tmp_path: Path, form: str, name: str) -> None:
    rows = [{key: value for key, value in row.items() if key != "image"} for row in records(data, name)]
    file = foreign(form, name, rows, tmp_path / FORMS[form])
    assert run("score", file, "--benchmark", name, "--data", data, "--out", tmp_path / "out") == 0
    figures = result(tmp_path / "out", name)["figures"]
    assert figures["perception"] == 2000 if name == "mme" else figures["accuracy"] == 1.0


def test_an_answer_to_another_question_is_refused(data: Path, tmp_path: Path, capsys: Any) -> None:
    rows = records(data, "pope")
    made = [{"doc_id": n, "question": "Is it raining?", "filtered_resps": ["Yes"]} for n in range(len(rows))]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, made)))
    assert run("score", tmp_path / "s.jsonl", "--benchmark", "pope", "--data", data, "--out", tmp_path / "out") == 2
    assert "Is it raining?" in capsys.readouterr().err
