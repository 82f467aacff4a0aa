"""VQAv2 (Goyal et al., 2017), validation: 214,354 short-answer questions with ten keys each.

Three ways of normalising are in use. Protocol "lmms_eval" normalises both sides always (lmms-eval since 2025);
"official" only where the ten keys differ (the data set's own code: "Yes" against ten "yes" is then wrong);
"lmms_eval_0.3" is what the VARGPT tables were made with, in which a right answer with a hyphen can be wrong.
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
from vargpt_lightning.evaluation.rules.vqa_accuracy import QWEN, VQA_REFERENCES, VQAV2_RULES, score_vqa, vqa_figures

NAME = "vqav2"
TITLE = "VQAv2 (val)"
HUB = HubSource("VQAv2", split="validation")
HEADLINE = "accuracy"
SCALE = 100
REFERENCES = VQA_REFERENCES
MAX_NEW_TOKENS = 16
KNOWN = tuple(VQAV2_RULES)
STYLES = {"llava": SHORT, "plain": "", "qwen": QWEN}
COLUMNS = Columns(
    needed=("question_id", "question", "image_id"),
    of_answers=("answers", "answer_type"),
    foreign=("ocr_tokens", "category", "choices"),
    id_type=int,
    answers_as_dicts=True,
)


def load(path: str | Path, pictures: bool = True) -> Rows:
    """Rows of a local directory: the mirror's parquet files, or the authors' JSON files and COCO pictures.

    Validation goes before test-dev and test, which have no answers: these can be asked, not scored.

    Raises:
        UserError: neither layout is there, or its content is not VQAv2's.
    """
    path = Path(path)
    rows = mirror_rows(path, ("validation", "testdev", "test"), COLUMNS, pictures)
    if rows is None:
        rows = coco_rows(path, "v2_", COLUMNS, pictures)
    if rows is None:
        looked_for = ("validation-*.parquet", "v2_OpenEnded_mscoco_val2014_questions.json")
        raise nothing_found(path, TITLE, looked_for)
    return rows


def prompt(record: Record, style: str = "llava") -> str:
    """The question and the instruction of a style: "llava", "plain" or "qwen"."""
    return question(record) + styled(STYLES, style)


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """VQA accuracy of an output. Raises UserError for a record without answers and for an unknown protocol."""
    return score_vqa(output, record, protocol, VQAV2_RULES)


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """Accuracy, also by `answer_type` (yes/no, number, other), the counts, and the interval over questions."""
    check_protocol(protocol, KNOWN)
    return vqa_figures(records, scores, record_id, "answer_type")
