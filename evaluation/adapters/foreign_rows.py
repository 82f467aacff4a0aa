"""Answers as other projects' evaluations write them: LLaVA's JSON lines, lmms-eval's samples, VLMEvalKit's tables.

    LLaVA        question_id, prompt, text; MME's two questions of a picture share their id, POPE names its category,
                 TextVQA's id is the picture's
    lmms-eval    *samples_*.jsonl: doc_id, input, filtered_resps (or resps), and what each figure is made of, with ids
                 in most tasks; earlier releases: doc with the data's own columns, in one .json file under "logs"
    VLMEvalKit   .xlsx, .tsv, .csv: index, question, prediction, and the data's own columns

Each writes another id. A row gives all ids that it may mean, and the first that the benchmark has counts; where it also
says its question, that is compared with the one that was asked. Imports no torch.
"""

from __future__ import annotations

import contextlib
import csv
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vargpt_lightning.errors import UserError

TABLES = (".tsv", ".csv", ".xlsx")
YES_NO = " Please answer yes or no."  # which LLaVA's files of MME leave out
NUMBERED = "#"  # before an id that is a row's number in the data
_ID_COLUMNS = ("id", "question_id", "questionId", "index", "image_path")
_PICTURE = re.compile(r"<image ?\d*>")
_PICTURE_NAME = re.compile(r"\.(?:jpe?g|png)$", re.IGNORECASE)
_LABELLED = re.compile(r"^Question: *(.*?)(?: *Short answer:)?$", re.MULTILINE)
_NO_QUESTION = re.compile(r"(?:Context: N/A|(?:Reference )?OCR tokens?:.*)?")
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def output_of(row: Mapping[str, Any]) -> Any:
    """What lmms-eval kept as the answer: its filtered response, else the raw one; None for rows of others."""
    for name in ("filtered_resps", "resps"):
        value = row.get(name)
        while isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            return value
    return None


def is_foreign(row: Mapping[str, Any]) -> bool:
    """Whether a row is of one of these forms, and not of ours: id, or question_id alone."""
    return any(name in row for name in ("doc_id", "doc", "index", "round_id", "image_path")) or (
        "question_id" in row and any(name in row for name in ("prompt", "question", "category"))
    )


def ids_of(row: Mapping[str, Any], benchmark: str) -> list[str]:
    """All ids that a row may mean, the surest first."""
    from vargpt_lightning.evaluation import benchmarks

    asked = question_of(row)
    forms = dict.fromkeys((asked, asked + YES_NO, asked.lower())) if asked else ()
    found: list[str] = []
    own: list[str] = []
    for source in _sources(row):
        if benchmark in benchmarks.names():
            with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
                own.append(str(benchmarks.get(benchmark).record_id(dict(source))))
        plain = [_text(source[name]) for name in _ID_COLUMNS if source.get(name) not in (None, "")]
        plain += [_PICTURE_NAME.sub("", id_) for id_ in plain]
        found += [f"{id_}/{form}" for id_ in plain for form in forms]
        found += [f"{source['category']}/{id_}" for id_ in plain if source.get("category")]
        found += plain
    if row.get("doc_id") is not None and not own:  # their data may have rows that are none here, as videos
        found.append(f"{NUMBERED}{_text(row['doc_id'])}")
    return list(dict.fromkeys([*own, *found]))


def _sources(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a row may have its id in: the data's own row, itself, and what lmms-eval's figures are made of."""
    doc = row.get("doc")
    scored = [each for name, each in row.items() if name != "doc" and isinstance(each, Mapping)]
    # a submission to VizWiz's or OK-VQA's server names the picture, whose name is the question's id
    scored = [{"id": each["image"], **each} if isinstance(each.get("image"), str) else each for each in scored]
    return [*([doc] if isinstance(doc, Mapping) else []), row, *(scored if "doc_id" in row else [])]


def question_of(row: Mapping[str, Any]) -> str:
    """The question that a row says it answers: its column, or that of its prompt; empty where it says none."""
    doc = row.get("doc")
    for source in (row, doc if isinstance(doc, Mapping) else {}):
        if isinstance(source.get("question"), str):
            return str(source["question"]).strip()
    for name in ("prompt", "input"):
        prompt = row.get(name)
        prompt = prompt[0] if isinstance(prompt, list) and prompt else prompt
        if isinstance(prompt, str):
            return _asked(prompt)
    return ""


def _asked(prompt: str) -> str:
    """What a prompt asks: what is labelled as the question, or the first line that may be one."""
    text = _PICTURE.sub("", prompt).strip()
    if labelled := _LABELLED.search(text):
        return labelled[1].strip()
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if not _NO_QUESTION.fullmatch(line)), "")


def same_question(said: str, prompt: str) -> bool:
    """Whether a prompt is about the question that a row says it answers, up to spaces, case and places of pictures."""
    plain = [re.sub(r"\W+", "", _PICTURE.sub("", text.replace(YES_NO, ""))).lower() for text in (said, prompt)]
    return plain[0] in plain[1]


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# --------------------------------------------------------------------------------------------------------- tables


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table with its first line as names.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        if path.suffix == ".xlsx":
            yield from _sheet(path)
            return
        csv.field_size_limit(2**30)  # VLMEvalKit keeps pictures as base64 in a cell
        with open(path, newline="", encoding="utf-8-sig") as lines:
            yield from csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    except (OSError, KeyError, csv.Error, UnicodeDecodeError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise UserError(f"{path}: not readable as a table ({error})") from error


def _sheet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a workbook's first sheet; its texts are in a list of their own, or in the cells."""
    with zipfile.ZipFile(path) as book:
        shared: list[str] = []
        if "xl/sharedStrings.xml" in book.namelist():
            shared = [_words(item) for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    names: dict[str, str] = {}
    for row in sheet.iter(f"{_SHEET}row"):
        cells = {re.sub(r"\d", "", cell.get("r", "")): _value(cell, shared) for cell in row.iter(f"{_SHEET}c")}
        if not names:
            names = {place: str(value) for place, value in cells.items() if value is not None}
        elif cells:
            yield {name: cells.get(place) for place, name in names.items()}


def _value(cell: ElementTree.Element, shared: list[str]) -> Any:
    kind, value = cell.get("t"), cell.find(f"{_SHEET}v")
    if kind == "inlineStr":
        return _words(cell)
    if value is None or value.text is None:
        return None
    if kind == "s":
        return shared[int(value.text)]
    return value.text if kind in ("str", "b", "e") else _number(value.text)


def _number(text: str) -> Any:
    number = float(text)
    return int(number) if number.is_integer() else number


def _words(item: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in item.iter(f"{_SHEET}t"))
