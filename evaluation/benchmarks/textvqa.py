"""TextVQA (Singh et al., 2019), val: 5,000 questions about text in pictures.

Style "llava" asks as lmms-eval does, without the words that a text recogniser read; "llava_ocr" adds them, as the
LLaVA-1.5 paper did. The two are far apart (about 46 and 58 for LLaVA-1.5-7B) and never to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol
from vargpt_lightning.evaluation.formats.layouts import HubSource, Picture, Rows, image_in, read_json, require
from vargpt_lightning.evaluation.formats.vqa_files import (
    Columns,
    listed_rows,
    mirror_rows,
    nothing_found,
    put_right,
    question,
    record_id,
    refuse_repeated,
)
from vargpt_lightning.evaluation.formats.vqa_files import pictures as pictures
from vargpt_lightning.evaluation.rules.shared import SHORT, styled
from vargpt_lightning.evaluation.rules.vqa_accuracy import QWEN, VQA_REFERENCES, score_vqa, vqa_figures
from vargpt_lightning.utils.errors import UserError

NAME = "textvqa"
TITLE = "TextVQA (val)"
HUB = HubSource("textvqa", split="validation")
HEADLINE = "accuracy"
SCALE = 100
REFERENCES = VQA_REFERENCES
MAX_NEW_TOKENS = 1024  # the references give no limit, and their wrappers this one
STYLES = {"llava": SHORT, "llava_ocr": SHORT, "plain": "", "qwen": QWEN}
COLUMNS = Columns(
    needed=("question_id", "question", "image_id"),
    of_answers=("answers",),
    foreign=("multiple_choice_answer", "answer_type", "category", "choices"),
    id_type=int,
)


def load(path: str | Path, pictures: bool = True) -> Rows:
    """Rows of a local directory: the mirror's parquet files, or the authors' JSON and pictures.

    Of the authors' files the Rosetta OCR file is read too where there is one. Validation goes before test, which has
    no answers: it can be asked, not scored.

    Raises:
        UserError: neither layout is there, or its content is not TextVQA's.
    """
    path = Path(path)
    rows = mirror_rows(path, ("validation", "val", "test"), COLUMNS, pictures)
    if rows is None:
        rows = _authors_rows(path, pictures)
    if rows is None:
        raise nothing_found(path, TITLE, ("validation-*.parquet", "TextVQA_0.5.1_val.json"))
    return rows


def _authors_rows(path: Path, pictures: bool) -> Rows | None:
    """Rows of `TextVQA_*_val.json` (or test), whose pictures are those of the training split (or of test)."""
    file = path if path.is_file() and path.name.startswith("TextVQA_") else _file(path, "TextVQA_[0-9]*")
    if file is None:
        return None
    split = "test" if file.stem.endswith("test") else "val"
    entries = _data(file)
    for number, entry in enumerate(entries, 1):
        require(entry, COLUMNS.needed + (("answers",) if split == "val" else ()), f"{file}, entry {number}")
    refuse_repeated((entry["question_id"] for entry in entries), str(file))
    read_words = _ocr_tokens(file.parent, split)
    names = ("train_images", "train_val_images") if split == "val" else ("test_images",)
    folders = [above / name for above in (file.parent, file.parent.parent) for name in names]
    folder = next((each for each in folders if each.is_dir()), file.parent)

    def make(index: int) -> Record:
        row = {"answers": None, **entries[index]}
        if row["image_id"] in read_words and "ocr_tokens" not in row:
            row["ocr_tokens"] = read_words[row["image_id"]]
        return put_right(row, COLUMNS, str(file))

    def picture(index: int) -> Picture:
        return image_in(folder, f"{entries[index]['image_id']}.jpg")

    return listed_rows(make, picture, len(entries), str(file), pictures)


def _file(folder: Path, start: str, splits: Sequence[str] = ("val", "test")) -> Path | None:
    """The newest JSON file of that name in the folder, of the first split that is there."""
    found = (sorted(folder.glob(f"{start}_{split}.json")) for split in splits)
    return next((files[-1] for files in found if files), None)


def _data(file: Path) -> list[dict[str, Any]]:
    content = read_json(file)
    require(content if isinstance(content, dict) else (), ("data",), file)
    entries: list[dict[str, Any]] = content["data"]
    return entries


def _ocr_tokens(folder: Path, split: str) -> dict[str, list[str]]:
    """The words in each picture, by its id, of the Rosetta file; none when there is no such file."""
    file = _file(folder, "TextVQA_Rosetta_OCR_*", (split,))
    if file is None:
        return {}
    entries = _data(file)
    for number, entry in enumerate(entries, 1):
        require(entry, ("image_id", "ocr_tokens"), f"{file}, entry {number}")
    return {entry["image_id"]: entry["ocr_tokens"] for entry in entries}


def other_id(record: Record) -> str:
    """What LLaVA's files call the question: its picture's id and its words."""
    return f"{record['image_id']}/{question(record).strip().lower()}"


def prompt(record: Record, style: str = "llava", ocr: bool = False) -> str:
    """The question and the instruction of a style: "llava", "llava_ocr", "plain" or "qwen".

    All but "plain" write the question as lmms-eval does: the first letter as a capital, all others small ("usa").
    `ocr` puts in the words that were read in the picture, as style "llava_ocr" does.

    Raises:
        UserError: unknown style, no question, or no `ocr_tokens` where they are asked for.
    """
    ending = styled(STYLES, style)
    text = question(record)
    read = f"\nReference OCR token: {', '.join(_words_of(record))}" if ocr or style == "llava_ocr" else ""
    return (text if style == "plain" else text.capitalize()) + read + ending


def _words_of(record: Record) -> list[str]:
    tokens = record.get("ocr_tokens")
    if tokens is None:
        raise UserError(
            f"question {record.get('question_id')!r} has no ocr_tokens; the authors' files need "
            "TextVQA_Rosetta_OCR_v0.2_val.json beside them"
        )
    return [str(token) for token in tokens]


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """VQA accuracy of an output. Raises UserError for a record without answers and for an unknown protocol."""
    return score_vqa(output, record, protocol)


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, the counts, and the interval over questions."""
    check_protocol(protocol)
    return vqa_figures(records, scores, record_id)
