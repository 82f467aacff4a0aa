"""Answers as LLaVA, lmms-eval and VLMEvalKit write them, for benchmarks whose ids have another form in each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_evaluate_benchmarks import result, write_benchmarks
from tests.evaluation.benchmarks.small_files import cell, write_mirror, write_picture
from vargpt_lightning.cli import main

Row = dict[str, Any]
SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."

# ---------------------------------------------------------------------------------------------------------- questions

OPTIONS = {"A": "red", "B": "blue", "C": "nan", "D": "nan"}
TURNED = {"A": "blue", "B": "red", "C": "nan", "D": "nan"}
MMBENCH = [
    {"index": index, "question": "Which colour?", "hint": hint, "answer": answer, **options, "category": "colour",
     "L2-category": "perception", "source": "s", "split": "dev"}
    for index, hint, answer, options in (
        (7, "nan", "A", OPTIONS), (8, "Look at the wall.\nTwice.", "B", OPTIONS),
        (1_000_007, "nan", "B", TURNED), (1_000_008, "Look at the wall.\nTwice.", "A", TURNED),
    )
]  # fmt: skip
SEEDBENCH = [
    {"question_id": id_, "question": "How many towels are there?", "answer": answer, "data_type": kind, "data_id": id_,
     "choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four", "question_type_id": 5,
     "segment": []}
    for id_, answer, kind in (("12", "C", "video"), ("101669", "A", "image"), ("101670", "B", "image"))
]  # fmt: skip
MMMU = [
    {"id": "validation_Art_1", "question": "In <image 1>, who is it?", "options": "['a cat', 'a dog']", "answer": "B",
     "question_type": "multiple-choice", "subfield": "x"},
    {"id": "validation_Math_2", "question": "<image 1> How many?", "options": "[]", "answer": "12",
     "question_type": "open", "subfield": "x"},
]  # fmt: skip
SCIENCEQA = [
    {"question": "Which is an ape?", "choices": ["cat", "gibbon"], "answer": 1, "hint": ""},
    {"question": "Which is red?", "choices": ["rose", "leaf"], "answer": 0, "hint": "Look at the picture."},
]
GQA = [
    {"id": "201307251", "imageId": "n161313", "question": "Is it overcast?", "answer": "no"},
    {"id": "201640614", "imageId": "n235859", "question": "Who is wearing the dress?", "answer": "woman"},
]
TEXTVQA = [
    {"question_id": number, "image_id": image, "question": question, "answers": [answer] * 10}
    for number, image, question, answer in (
        (34602, "003a8ae2ef43b901", "what is the Brand of this camera?", "dakota"),
        (34603, "003a8ae2ef43b901", "what does the small white text spell?", "copenhagen"),
        (34604, "0054c91397f2fe05", "what is the Brand of this camera?", "nikon"),
    )
]
OKVQA = [
    {"question_id": id_, "question": "What sport?", "answers": [answer] * 10, "answer_type": "other"}
    for id_, answer in (("2971475", "race"), ("3397615", "golf"))
]
VIZWIZ = [
    {
        "question_id": f"VizWiz_val_{number:08d}",
        "question": "What IS this?",
        "answers": [answer] * 10,
        "category": "other",
    }
    for number, answer in enumerate(("coffee", "unanswerable"))
]
VQAV2 = [
    {"question_id": 262148000 + number, "image_id": 262148, "question": question, "answer_type": "other",
     "question_type": "what", "multiple_choice_answer": answer,
     "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": place} for place in range(1, 11)]}
    for number, (question, answer) in enumerate((("Where is he looking?", "down"), ("Is it red?", "yes")))
]  # fmt: skip
MIRRORS: dict[str, tuple[str, list[Row]]] = {
    "mmbench": ("en/dev-00000-of-00001.parquet", MMBENCH),
    "seedbench": ("data/test-00000-of-00001.parquet", SEEDBENCH),
    "mmmu": ("data/validation-00000-of-00001.parquet", MMMU),
    "scienceqa_img": ("ScienceQA-IMG/test-00000-of-00001.parquet", SCIENCEQA),
    "gqa": ("testdev_balanced_instructions/testdev-00000-of-00001.parquet", GQA),
    "textvqa": ("data/validation-00000-of-00001.parquet", TEXTVQA),
    "okvqa": ("data/val2014-00000-of-00001.parquet", OKVQA),
    "vizwiz": ("data/val-00000-of-00001.parquet", VIZWIZ),
    "vqav2": ("data/validation-00000-of-00001.parquet", VQAV2),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each benchmark in its public mirror's columns."""
    folder = tmp_path_factory.mktemp("benchmarks")
    pictures = {"seedbench": {"image": [cell()]}, "mmmu": {"image_1": cell()}, "gqa": {}}
    for name, (file, rows) in MIRRORS.items():
        write_mirror(folder / name / file, [row | pictures.get(name, {"image": cell()}) for row in rows])
    return folder


def right(row: Row) -> str:
    """The key of a question, as a model would say it."""
    if "choices" in row:
        return "AB"[row["answer"]]
    if "answers" in row:
        return str(row["multiple_choice_answer"] if "multiple_choice_answer" in row else row["answers"][0])
    return str(row["answer"])


# ----------------------------------------------------------------------------------------------------------- the forms


def options_of(row: Row) -> str:
    """The options as prompts list them, each on a line of its own."""
    if "choices" in row:
        texts = row["choices"]
    elif "choice_a" in row:
        texts = [row[f"choice_{letter}"] for letter in "abcd"]
    else:
        texts = [row[letter] for letter in "ABCD" if letter in row and row[letter] != "nan"]
    return "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", texts, strict=False))


def llava(id_: Any, prompt: str, row: Row, **more: Any) -> Row:
    """A row of LLaVA's `model_vqa*.py`."""
    said = {"question_id": id_, "prompt": prompt, "text": right(row)}
    return said | more | {"answer_id": "x", "model_id": "llava-v1.5-7b", "metadata": {}}


def lmms(number: int, prompt: str, row: Row, **scored: Any) -> Row:
    """A row of lmms-eval's `*_samples_*.jsonl`: without the data's row, with what the task's figures are made of."""
    hashes = {f"{name}_hash": "0" for name in ("doc", "prompt", "target")}
    return {"doc_id": number, "target": right(row), "filtered_resps": [right(row)], **hashes, **scored, "input": prompt}


def mmbench_llava(number: int, row: Row) -> Row:
    hint = "" if row["hint"] == "nan" else f"{row['hint']}\n"
    more = {"round_id": 0, "options": [row["A"], row["B"]], "option_char": ["A", "B"]}
    return llava(row["index"], f"{hint}{row['question']}{options_of(row)}", row, **more)


def mmbench_lmms(number: int, row: Row) -> Row:
    hint = "" if row["hint"] == "nan" else f"{row['hint']} "
    scored = {**row, "prediction": right(row)}
    prompt = f"{hint}{row['question']} There are several options:{options_of(row)}{LETTER}"
    return lmms(number, prompt, row, gpt_eval_score=scored, submission=scored)


def seedbench_lmms(number: int, row: Row) -> Row:
    scored = {"pred": right(row), "answer": row["answer"], "question_id": row["question_id"]}
    prompt = f"{row['question']}{options_of(row)}{LETTER}"
    return lmms(number, prompt, row, **{f"seed_{row['data_type']}": scored, "seed_all": scored})


def mmmu_lmms(number: int, row: Row) -> Row:
    scored = {"id": row["id"], "subdomain": "Art", "question_type": row["question_type"], "answer": row["answer"],
              "parsed_pred": [right(row)]}  # fmt: skip
    return lmms(number, row["question"].replace("<image 1>", "<image>") + "\n\n" + LETTER, row, mmmu_acc=scored)


def scienceqa_lmms(number: int, row: Row) -> Row:
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return lmms(number, f"{context}{row['question']}{options_of(row)}{LETTER}", row, exact_match=1.0)


def scienceqa_qwen(number: int, row: Row) -> Row:
    prompt = f"Context: {row['hint'] or 'N/A'}\nQuestion: {row['question']}\nOptions:{options_of(row)}\nAnswer:"
    return lmms(number, prompt, row, exact_match=1.0)


def submitted(number: int, row: Row) -> Row:
    """TextVQA, VQAv2: what goes to the server has the question's id."""
    scored = {"question_id": row["question_id"], "answer": right(row)}
    return lmms(number, row["question"].capitalize() + SHORT, row, exact_match=1.0, submission=scored)


def picture_submitted(number: int, row: Row) -> Row:
    """VizWiz, OK-VQA: what goes to the server names a picture after the question."""
    scored = {"image": f"{row['question_id']}.jpg", "answer": right(row)}
    return lmms(number, row["question"].capitalize() + SHORT, row, exact_match=1.0, submission=scored)


def textvqa_llava(number: int, row: Row) -> Row:
    return llava(row["image_id"], f"{row['question']}\nReference OCR token: A, B\n{SHORT.strip()}", row)


def textvqa_llava_first(number: int, row: Row) -> Row:
    return llava(row["image_id"], f"OCR tokens: A B\nQuestion: {row['question']}  Short answer:", row)


JSON_LINES: dict[str, tuple[str, Callable[[int, Row], Row]]] = {
    "mmbench of LLaVA": ("mmbench", mmbench_llava),
    "mmbench of lmms-eval": ("mmbench", mmbench_lmms),
    "seedbench of LLaVA": ("seedbench", lambda n, row: llava(
        int(row["question_id"]), row["question"] + options_of(row) + LETTER, row)),
    "seedbench of lmms-eval": ("seedbench", seedbench_lmms),
    "mmmu of lmms-eval": ("mmmu", mmmu_lmms),
    "scienceqa_img of lmms-eval": ("scienceqa_img", scienceqa_lmms),
    "scienceqa_img of lmms-eval, Qwen's prompt": ("scienceqa_img", scienceqa_qwen),
    "gqa of LLaVA": ("gqa", lambda n, row: llava(row["id"], row["question"] + SHORT, row)),
    "gqa of lmms-eval": ("gqa", lambda n, row: lmms(n, row["question"] + SHORT, row, exact_match=1.0)),
    "textvqa of LLaVA": ("textvqa", textvqa_llava),
    "textvqa of LLaVA, first prompt": ("textvqa", textvqa_llava_first),
    "textvqa of lmms-eval": ("textvqa", submitted),
    "okvqa of lmms-eval": ("okvqa", picture_submitted),
    "vizwiz of LLaVA": ("vizwiz", lambda n, row: llava(f"{row['question_id']}.jpg", row["question"] + SHORT, row)),
    "vizwiz of lmms-eval": ("vizwiz", picture_submitted),
    "vqav2 of LLaVA": ("vqav2", lambda n, row: llava(row["question_id"], row["question"] + SHORT, row)),
    "vqav2 of lmms-eval": ("vqav2", submitted),
    "vqav2 of lmms-eval, val": ("vqav2", lambda n, row: lmms(n, row["question"] + SHORT, row, exact_match=1.0)),
}  # fmt: skip


def write_lines(file: Path, rows: list[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_tsv(file: Path, rows: list[Row]) -> Path:
    with open(file, "w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return file


def score(file: Path, name: str, data: Path, out: Path, *more: str) -> int:
    return main(["score", str(file), "--benchmark", name, "--data", str(data), "--out", str(out), *more])


def answered(name: str, rows: list[Row]) -> Mapping[str, float]:
    """How many questions those of a file are, the videos of SEED-Bench left out."""
    return {"n": len([row for row in rows if row.get("data_type") != "video"])}


@pytest.mark.parametrize("form", JSON_LINES)
def test_json_lines_of_other_projects(
    form: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, made = JSON_LINES[form]
    rows = MIRRORS[name][1]
    file = write_lines(tmp_path / "theirs.jsonl", [made(number, row) for number, row in enumerate(rows)][::-1])
    more = ["--allow", "unknown"] if name == "seedbench" else []  # videos
    assert score(file, name, data, tmp_path / "out", *more) == 0, capsys.readouterr().err
    found = result(tmp_path / "out", name)
    assert found["figures"]["accuracy"] == 1.0 and found["figures"]["n"] == answered(name, rows)["n"]
    assert found["asking"]["answers"] == {"missing": 0, "duplicate": 0, "unknown": int(name == "seedbench")}


def test_videos_take_no_other_questions_place(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [seedbench_lmms(number, row) for number, row in enumerate(SEEDBENCH)]
    file = write_lines(tmp_path / "theirs.jsonl", rows)
    assert score(file, "seedbench", data, tmp_path / "out") == 2
    assert "ids for seedbench: 1 unknown (such as '12'); allow by name: unknown" in capsys.readouterr().err


def test_the_first_form_of_lmms_eval(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [
        {"doc_id": number, "doc": row, "target": row["answer"], "arguments": [], "resps": [[row["answer"]]],
         "filtered_resps": [row["answer"]], "exact_match": 1.0} for number, row in enumerate(GQA)
    ]  # fmt: skip
    file = tmp_path / "gqa.json"
    file.write_text(json.dumps({"args": {"model": "llava"}, "model_configs": {}, "logs": logs, "time": "0128_2200"}))
    assert score(file, "gqa", data, tmp_path / "out") == 0, capsys.readouterr().err
    assert result(tmp_path / "out", "gqa")["figures"]["accuracy"] == 1.0


def test_questions_of_scienceqa_by_the_authors_ids(data: Path, tmp_path: Path, capsys: Any) -> None:
    """LLaVA asks all questions of the test split, those without a picture too, under their ids in problems.json."""
    folder = tmp_path / "authors" / "scienceqa_img"
    problems = {str(number): row | {"image": "image.png"} for number, row in zip((11, 4), SCIENCEQA, strict=True)}
    problems["5"] = SCIENCEQA[0] | {"image": None, "question": "What is an ape?"}
    folder.mkdir(parents=True)
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    for id_ in ("11", "4"):
        write_picture(folder / "images" / "test" / id_ / "image.png")
    rows = []
    for id_, row in problems.items():
        choices = " ".join(f"({letter}) {text}" for letter, text in zip("AB", row["choices"], strict=True))
        context = row["hint"] or "N/A"
        prompt = f"Context: {context}\nQuestion: {row['question']}\nOptions: {choices}"
        rows.append(llava(id_, "<image>\n" + prompt if row["image"] else prompt, row))
    file = write_lines(tmp_path / "theirs.jsonl", rows)
    assert score(file, "scienceqa_img", folder.parent, tmp_path / "out") == 2
    assert "1 unknown (such as '5/What is an ape?')" in capsys.readouterr().err
    assert score(file, "scienceqa_img", folder.parent, tmp_path / "out", "--allow", "unknown") == 0
    figures = result(tmp_path / "out", "scienceqa_img")["figures"]
    assert (figures["accuracy"], figures["n"]) == (1.0, 2)
    # the mirror numbers its rows, and other questions have these numbers
    numbered = [row | {"question_id": number} for number, row in zip("10", rows, strict=False)]
    file = write_lines(tmp_path / "numbered.jsonl", numbered)
    assert score(file, "scienceqa_img", data, tmp_path / "numbered") == 2
    assert "the answer to '0' is to 'Which is red?'" in capsys.readouterr().err


VLMEVALKIT: dict[str, Callable[[Row], Row]] = {
    "mmbench": lambda row: {"index": row["index"], "question": row["question"], "hint": row["hint"], "A": row["A"],
                            "B": row["B"], "category": row["category"], "l2-category": row["L2-category"]},
    "seedbench": lambda row: {"index": row["question_id"], "question": row["question"], "A": "One", "B": "Two"},
    "mmmu": lambda row: {"index": "3", "id": row["id"], "question": row["question"], "split": "validation"},
}  # fmt: skip


@pytest.mark.parametrize("name", VLMEVALKIT)
def test_tables_of_vlmevalkit(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [row for row in MIRRORS[name][1] if row.get("data_type") != "video"]
    rows = [VLMEVALKIT[name](row) | {"answer": "A", "prediction": right(row)} for row in asked]
    file = write_tsv(tmp_path / "model_data.tsv", rows)
    assert score(file, name, data, tmp_path / "out") == 0, capsys.readouterr().err
    assert result(tmp_path / "out", name)["figures"]["accuracy"] == 1.0


@pytest.mark.parametrize("name", ["gqa", "textvqa", "vizwiz"])
def test_numbers_of_their_own_are_refused(name: str, data: Path, tmp_path: Path, capsys: Any) -> None:
    """Where the index of VLMEvalKit's table is none of the benchmark's ids, nothing is guessed."""
    rows = [
        {"index": number, "question": row["question"], "answer": right(row), "prediction": right(row)}
        for number, row in enumerate(MIRRORS[name][1])
    ]
    assert score(write_tsv(tmp_path / "model_data.tsv", rows), name, data, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert f"ids for {name}: {len(rows)} missing" in said and f"{len(rows)} unknown (such as '0/" in said
    assert said.count("\n") == 1


def test_the_table_of_pope_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VLMEvalKit asks once what several categories ask, under numbers of its own."""
    data = write_benchmarks(tmp_path / "data")
    rows = [
        {"index": number, "question": f"Is there a {thing}?", "answer": "Yes", "category": category,
         "image_path": f"POPE/{number}.jpg", "prediction": "Yes"}
        for number, (thing, category) in enumerate((("dog", "adversarial,popular,random"), ("cat", "popular,random")))
    ]  # fmt: skip
    assert score(write_tsv(tmp_path / "model_POPE.tsv", rows), "pope", data, tmp_path / "out") == 2
    assert "ids for pope: 6 missing" in capsys.readouterr().err
