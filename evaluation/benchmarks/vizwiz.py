"""VizWiz-VQA (Gurari et al., 2018), val: 4,319 questions that blind people asked about their own photographs.

"unanswerable" is an answer like any other. The second task of the data set, how well answerability is predicted, is
not part of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from vargpt_lightning.evaluation.rules.vqa_accuracy import QWEN, UNANSWERABLE, VQA_REFERENCES, score_vqa, vqa_figures
from vargpt_lightning.utils.errors import UserError

NAME = "vizwiz"
TITLE = "VizWiz-VQA (val)"
HUB = HubSource("VizWiz-VQA", split="val")
HEADLINE = "accuracy"
SCALE = 100
REFERENCES = VQA_REFERENCES
MAX_NEW_TOKENS = 1024  # the references give no limit, and their wrappers this one
STYLES = {"llava": UNANSWERABLE + SHORT, "plain": "", "qwen": QWEN}
COLUMNS = Columns(
    needed=("question_id", "question"),
    of_answers=("answers", "category"),
    foreign=("multiple_choice_answer", "image_classes", "ocr_tokens", "answer_type"),
    id_type=str,
)


def load(path: str | Path, pictures: bool = True) -> Rows:
    """Rows of a local directory: the mirror's parquet files, or the authors' val.json and its pictures.

    Validation goes before test, which has no answers: it can be asked, not scored.

    Raises:
        UserError: neither layout is there, or its content is not VizWiz's.
    """
    path = Path(path)
    rows = mirror_rows(path, ("val", "validation", "test"), COLUMNS, pictures)
    if rows is None:
        rows = _authors_rows(path, pictures)
    if rows is None:
        raise nothing_found(path, TITLE, ("val-*.parquet", "val.json"))
    return rows


def _authors_rows(path: Path, pictures: bool) -> Rows | None:
    """Rows of `val.json` (or test.json, which has no answers), whose pictures are in the folder of the same name."""
    file = _annotations(path)
    if file is None:
        return None
    entries = read_json(file)
    if not isinstance(entries, list):
        raise UserError(f"{file}: got {type(entries).__name__}, expected a list of questions")
    answers = () if file.stem == "test" else ("answers", "answer_type")
    for number, entry in enumerate(entries, 1):
        require(entry if isinstance(entry, dict) else (), ("image", "question", *answers), f"{file}, entry {number}")
    refuse_repeated((Path(str(entry["image"])).stem for entry in entries), str(file))
    folders = (file.parent / file.stem, file.parent.parent / file.stem, file.parent / "images", file.parent)
    folder = next(each for each in folders if each.is_dir())

    def make(index: int) -> Record:
        entry = entries[index]
        row = {"question_id": Path(str(entry["image"])).stem, "question": entry["question"]}
        row |= {"answers": entry.get("answers"), "category": entry.get("answer_type")}
        return put_right(row, COLUMNS, str(file))

    def picture(index: int) -> Picture:
        return image_in(folder, str(entries[index]["image"]))

    return listed_rows(make, picture, len(entries), str(file), pictures)


def _annotations(path: Path) -> Path | None:
    """The file of questions and answers: val.json, or test.json where there is no other."""
    if path.is_file():
        return path if path.suffix == ".json" else None
    files = (
        path / folder / name for name in ("val.json", "test.json") for folder in ("", "Annotations", "annotations")
    )
    return next((file for file in files if file.is_file()), None)


def prompt(record: Record, style: str = "llava") -> str:
    """The question and the instruction of a style: "llava", "plain" or "qwen".

    Style "llava" writes the question as lmms-eval does: the first letter as a capital, all others small.
    """
    text = question(record)
    return (text.capitalize() if style == "llava" else text) + styled(STYLES, style)


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """VQA accuracy of an output. Raises UserError for a record without answers and for an unknown protocol."""
    return score_vqa(output, record, protocol)


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, also by `category`, the share of outputs "unanswerable", the counts, the interval over questions."""
    check_protocol(protocol)
    gave_up = sum(str(score.parsed).lower() == "unanswerable" for score in scores)
    more = {"said_unanswerable": gave_up / max(1, len(scores))}
    return vqa_figures(records, scores, record_id, "category", more)
