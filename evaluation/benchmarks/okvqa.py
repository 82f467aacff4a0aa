"""OK-VQA (Marino et al., 2019), val2014: 5,046 questions that need knowledge from outside the picture.

The authors' files hold five people's answers doubled to ten, each as stemmed (`answer`, the keys of their own scores)
and as written (`raw_answer`). Nothing is stemmed here: "racing" is not "race".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol
from vargpt_lightning.evaluation.formats.layouts import HubSource, Rows
from vargpt_lightning.evaluation.formats.vqa_coco import coco_rows
from vargpt_lightning.evaluation.formats.vqa_files import (
    Columns,
    mirror_rows,
    nothing_found,
    question,
    record_id,
)
from vargpt_lightning.evaluation.formats.vqa_files import pictures as pictures
from vargpt_lightning.evaluation.rules.shared import SHORT, styled
from vargpt_lightning.evaluation.rules.vqa_accuracy import QWEN, UNANSWERABLE, VQA_REFERENCES, score_vqa, vqa_figures

NAME = "okvqa"
TITLE = "OK-VQA (val2014)"
HUB = HubSource("OK-VQA", split="val2014")
HEADLINE = "accuracy"
SCALE = 100
REFERENCES = VQA_REFERENCES
MAX_NEW_TOKENS = 1024  # the references give no limit, and their wrappers this one
STYLES = {"llava": UNANSWERABLE + SHORT, "plain": "", "qwen": QWEN}
COLUMNS = Columns(
    needed=("question_id", "question"),
    of_answers=("answers", "answer_type"),
    foreign=("multiple_choice_answer", "image_classes", "ocr_tokens", "category"),
    id_type=str,
)


def load(path: str | Path, pictures: bool = True) -> Rows:
    """Rows of a local directory: the mirror's parquet files, or the authors' JSON files and COCO pictures.

    Raises:
        UserError: neither layout is there, or its content is not OK-VQA's.
    """
    path = Path(path)
    rows = mirror_rows(path, ("val2014", "validation"), COLUMNS, pictures)
    if rows is None:
        rows = coco_rows(path, "", COLUMNS, pictures)
    if rows is None:
        looked_for = ("val2014-*.parquet", "OpenEnded_mscoco_val2014_questions.json")
        raise nothing_found(path, TITLE, looked_for)
    return rows


def prompt(record: Record, style: str = "llava") -> str:
    """The question and the instruction of a style: "llava", "plain" or "qwen"."""
    return question(record) + styled(STYLES, style)


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """VQA accuracy of an output. Raises UserError for a record without answers and for an unknown protocol."""
    return score_vqa(output, record, protocol)


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, the counts, and the interval over questions."""
    check_protocol(protocol)
    return vqa_figures(records, scores, record_id)
