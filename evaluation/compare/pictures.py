"""The questions that changed sides with their pictures, a few of each set. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.compare.comparison import Comparison
from vargpt_lightning.evaluation.compare.systems import BENCHMARK, DRAWINGS, PICTURES, Compared, title_of
from vargpt_lightning.evaluation.images.picture_lists import list_pictures
from vargpt_lightning.evaluation.reports.benchmark_examples import Example, add_pictures, said, thumbnail, visible
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl

if TYPE_CHECKING:
    import pandas as pd

SIDE = 220  # pixels of the longer side of a picture


@dataclass
class Changed:
    """A question that one system answers better than the other, ready to be shown; `pictures` are (words, data URI)."""

    system: str
    title: str
    better: bool
    id: str
    kind: str
    prompt: str
    expected: str
    base_answer: str
    answer: str
    base_score: float
    score: float
    pictures: list[tuple[str, str]] = field(default_factory=list)
    missing: str = ""


def shown_changes(comparison: Comparison, most: int) -> list[Changed]:
    """Some of the questions that changed sides, of each set and direction at most so many, with their pictures."""
    by_name = {system.name: system for system in comparison.systems}
    base = comparison.systems[0]
    found: list[Changed] = []
    table = comparison.changed
    ways = (table["score"] > table["base_score"]).rename("better")
    for (run, source, split, better), rows in table.groupby(["run", "source", "split", ways], sort=False):
        chosen = rows.head(most)
        items = [_changed(row, title_of((source, split)), bool(better)) for row in chosen.to_dict("records")]
        if str(source).startswith(BENCHMARK):
            _of_benchmark(items, str(source).removeprefix(BENCHMARK), [base, by_name[str(run)]])
        else:
            _of_runs(items, chosen, str(source), base, by_name[str(run)])
        found += items
    return found


def _changed(row: Mapping[str, Any], title: str, better: bool) -> Changed:
    id_, kind, prompt = (visible(str(_known(row[name]) or ""), 600) for name in ("id", "kind", "prompt"))
    expected, before, now = (said(_known(row[name])) for name in ("expected", "base_answer", "answer"))
    scores = float(row["base_score"]), float(row["score"])
    return Changed(str(row["run"]), title, better, id_, kind, prompt, expected, before, now, *scores)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _of_benchmark(items: Sequence[Changed], name: str, systems: Sequence[Compared]) -> None:
    from vargpt_lightning.evaluation import benchmarks

    if any(name in system.drawings for system in systems):
        _of_drawings(items, name, systems)
        return
    data = next((system.data[name] for system in systems if name in system.data), None)
    if data is None:
        for item in items:
            item.missing = "without a picture: the benchmark's data are no longer where they were"
        return
    examples = [Example(each.id, each.id, "", "", 0.0, "", "", "", "") for each in items]
    try:
        add_pictures(examples, benchmarks.of_data(name, data), data)
    except UserError as error:
        for item in items:
            item.missing = visible(str(error), 300)
        return
    for item, example in zip(items, examples, strict=True):
        item.pictures, item.missing = [("asked about", uri) for uri in example.pictures], example.missing


def _of_drawings(items: Sequence[Changed], name: str, systems: Sequence[Compared]) -> None:
    """What each system drew for a prompt, where the folder of its drawings is still there."""
    for system in systems:
        try:
            files = {file.id: file.path for file in list_pictures(system.drawings[name])}
        except (KeyError, UserError):  # the folder is gone, or was never named
            files = {}
        for item in items:
            if (path := files.get(item.id)) is not None:
                _add(item, system.name, path.parent, path.name)
            else:
                item.missing = f"{system.name}: without its drawing, which is no longer where it was"


def _of_runs(items: Sequence[Changed], rows: pd.DataFrame, source: str, base: Compared, other: Compared) -> None:
    """Pictures of a run's own questions, and drawings of both."""
    real = _real(base)
    for item, row in zip(items, rows.to_dict("records"), strict=True):
        if (file := real.get(str(row["picture"]))) is not None:
            _add(item, "asked for" if source == DRAWINGS else "asked about", base.evaluation, file)
        if source in (DRAWINGS, PICTURES):
            for system, files in ((base, row["files_base"]), (other, row["files"])):
                if isinstance(files, list) and files:
                    _add(item, system.name, system.evaluation, files[0])


def _real(system: Compared) -> dict[str, str]:
    """The files of the real pictures by their keys."""
    if system.evaluation is None:
        return {}
    return {row["id"]: row["files"][0] for row in read_jsonl(system.evaluation / "pictures.jsonl") if row.get("files")}


def _add(item: Changed, words: str, folder: Path | None, file: str) -> None:
    if folder is None:
        return
    try:
        item.pictures.append((words, thumbnail(open_picture(folder, {"files": [file]}), SIDE)))
    except OSError as error:
        item.missing = visible(str(error), 300)
