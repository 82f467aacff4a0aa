"""Answers and drawings of an evaluation with their pictures, to look at. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from vargpt_lightning.evaluation.base.exact_match import is_right
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.base.sheets import Cell, contact_sheet, rows_sheet
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl

if TYPE_CHECKING:
    import pandas as pd


def select(
    scored: pd.DataFrame,
    source: str,
    *,
    kind: str | None = None,
    split: str | None = None,
    right: bool | None = None,
    word: str = "",
) -> pd.DataFrame:
    """The predictions that a filter lets through.

    Args:
        scored: of `comparisons.with_scores`.
        source: "questions", "drawings", or "benchmarks/NAME".
        kind, split: only these; None takes all.
        right: True takes what has the full score, False what has less.
        word: what prompt, answer or expected answer must hold, in whatever case.
    """
    found = scored[scored["source"] == source]
    if kind is not None:
        found = found[found["kind"] == kind]
    if split is not None:
        found = found[found["split"] == split]
    if right is not None:
        found = found[(found["score"] == 1) == right]
    if word:
        texts = zip(found["prompt"], found["answer"], found["expected"], strict=True)
        found = found.loc[[word.casefold() in " ".join(map(str, each)).casefold() for each in texts]]
    return found


def question_sheet(run: Path | str, answers: pd.DataFrame, columns: int = 5) -> Image.Image:
    """Pictures with what was asked about them, what was answered and what is right; a tick or a cross on each.

    Args:
        run: the run's folder.
        answers: rows of the table `predictions` whose source is "questions".

    Raises:
        UserError: there are no rows, or a picture is missing.
    """
    picture = _real_pictures(run, answers)
    cells = []
    for row in answers.itertuples(index=False):
        right = is_right(str(row.answer), str(row.expected))
        said = f"{row.answer}" if right else f"{row.answer or '(nothing)'}, not {row.expected}"
        cells.append(Cell(picture(row.picture), f"{row.prompt} – {said}", right))
    return contact_sheet(cells, columns=columns, cell=170, lines=5)


def drawing_sheet(run: Path | str, drawings: pd.DataFrame) -> Image.Image:
    """Each request to draw with the picture that it means, the drawing, and the real picture most like the drawing.

    Args:
        run: the run's folder.
        drawings: rows of the table `predictions` whose source is "drawings"; those that drew nothing are left out.

    Raises:
        UserError: none of the rows has a drawing, or a picture is missing.
    """
    drawn = drawings[drawings["files"].map(bool) & drawings["files"].notna()]
    picture = _real_pictures(run, drawn)
    rows = []
    for row in drawn.itertuples(index=False):
        place = "" if row.rank != row.rank else f" (place {int(row.rank) + 1})"
        made = _opened(RunFolder(run).evaluation, row.files[0])
        near = [picture(row.nearest)] if isinstance(row.nearest, str) else []
        rows.append((f"{row.prompt}{place}", [picture(row.picture), made, *near]))
    return rows_sheet(rows, heads=("asked for", "drawn", "most like it"), cell=128)


def _real_pictures(run: Path | str, rows: pd.DataFrame) -> Callable[[str], Image.Image]:
    """How a real picture is opened by its key."""
    if rows.empty:
        raise UserError("nothing to show: no row is left; widen the filter")
    folder = RunFolder(run).evaluation
    files = {row["id"]: row["files"][0] for row in read_jsonl(folder / "pictures.jsonl") if row.get("files")}

    def find(key: str) -> Image.Image:
        if key not in files:
            raise UserError(f"{folder / 'pictures.jsonl'}: no picture {key!r}")
        return _opened(folder, files[key])

    return find


def _opened(folder: Path, name: str) -> Image.Image:
    try:
        return open_picture(folder, {"files": [name]})
    except OSError as error:
        raise UserError(f"{folder / name}: {error}") from error
