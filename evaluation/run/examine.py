"""A model examined into a run's folder: asked all that evaluation asks, scored, and reported.

What is asked is kept in RUN/evaluation/asked.json, with the settings, and the real pictures beside it: a run can be
evaluated again without its data, and a killed evaluation resumes where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.run.benchmark_results import score_own_answers
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl, write_json

if TYPE_CHECKING:  # whether a folder was asked is said without torch
    from vargpt_lightning.evaluation.base.protocols import Drawing, Edit, Question, RealPicture, Talk
    from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
    from vargpt_lightning.evaluation.run.runner import EvaluationSettings, Progress
    from vargpt_lightning.inference.assistant import Assistant
    from vargpt_lightning.models.generation.answers import GenerationSettings


ASKED = "asked.json"


SCALE_STRIPS = 8  # drawings kept with the pictures after each scale; decoding these takes as long as drawing


@dataclass(frozen=True)
class Asked:
    """All that an evaluation asks; arguments as for `evaluation.runner.evaluate`.

    `training_pictures` are what drawings of scenes are compared with; `repeats` is how often some requests are drawn
    again.
    """

    questions: Sequence[Question]
    drawings: Sequence[Drawing]
    pictures: Sequence[RealPicture]
    training_answers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    training_prompts: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    talks: Sequence[Talk] = ()
    training_pictures: TrainingPictures | None = None
    repeats: int = 0
    edits: Sequence[Edit] = ()


def examine(
    run: RunFolder,
    assistant: Assistant,
    asked: Asked,
    settings: EvaluationSettings | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model into a run's folder, write the report, and return the figures.

    Args:
        assistant: the model; its generation settings are kept beside the questions.
        out: another folder for the evaluation; the run's own evaluation and report stay as they are.
        progress: called with a title, how many are done and how many there are.
    """
    from vargpt_lightning.evaluation.reports.report import build_report
    from vargpt_lightning.evaluation.run.runner import EvaluationSettings, evaluate
    from vargpt_lightning.evaluation.systems.own import OwnModel

    settings = settings or EvaluationSettings()
    folder = out or run.evaluation
    began = time.monotonic()
    _keep(folder, asked, settings, assistant.settings)
    step = max(1, len(asked.drawings) // SCALE_STRIPS)
    chosen = [(drawing.prompt, drawing.seed) for drawing in asked.drawings[::step]]
    metrics = evaluate(
        OwnModel(assistant),
        OwnModel(assistant, frozenset(chosen[:SCALE_STRIPS])),
        questions=asked.questions,
        drawings=asked.drawings,
        pictures=asked.pictures,
        talks=asked.talks,
        repeats=asked.repeats,
        edits=asked.edits,
        training_answers=asked.training_answers,
        training_prompts=asked.training_prompts,
        out=folder,
        settings=settings,
        model=assistant.digest,
        sampling=sampling_of(assistant),
        reconstruct=assistant.reconstruct,
        progress=progress,
    )
    if out is None:
        run.add_duration("evaluation", time.monotonic() - began)
        score_own_answers(run)
        build_report(run)
    return metrics


def check_asked(folder: Path) -> None:
    """Make sure that an evaluation's folder says what was asked; raises UserError where it does not."""
    file = folder / ASKED
    if not file.is_file():
        raise UserError(f"{file} is missing: the run was not evaluated yet; `vargpt fit` does so after its last stage")


def load_asked(folder: Path) -> tuple[Asked, EvaluationSettings, GenerationSettings]:
    """Return what an evaluation's folder was asked, with its settings and the generation's.

    Raises:
        UserError: nothing was asked there yet, or a file is missing or broken.
    """
    check_asked(folder)
    from vargpt_lightning.evaluation.base.files import open_picture
    from vargpt_lightning.evaluation.base.protocols import Drawing, Edit, Question, RealPicture, Talk
    from vargpt_lightning.evaluation.composition.training_pictures import TrainingPictures
    from vargpt_lightning.evaluation.run.runner import EvaluationSettings
    from vargpt_lightning.models.decoder.sampling import SamplingSettings
    from vargpt_lightning.models.generation.answers import GenerationSettings

    kept = read_json(folder / ASKED)
    try:
        questions = [Question(**{**row, "options": tuple(row["options"])}) for row in kept["questions"]]
        drawings = [Drawing(**row) for row in kept["drawings"]]
        pictures = [
            RealPicture(
                row["id"], open_picture(folder, row), scene=row.get("scene"), **{k: row[k] for k in _PICTURE_FIELDS}
            )
            for row in read_jsonl(folder / "pictures.jsonl")
        ]
        rows = kept.get("talks", [])
        talks = [Talk(row["id"], tuple(row["turns"]), tuple(row["draws"]), row["seed"]) for row in rows]
        generation = dict(kept["generation"])
        visual = generation.pop("visual")
        words = GenerationSettings(**generation, visual=visual and SamplingSettings(**visual))
        training = kept["training_answers"], kept.get("training_prompts", {})
        edits, repeats = [Edit(**row) for row in kept.get("edits", [])], kept.get("repeats", 0)
        asked = Asked(questions, drawings, pictures, *training, talks, TrainingPictures.load(folder), repeats, edits)
        return asked, EvaluationSettings(**kept["settings"]), words
    except (KeyError, TypeError, AttributeError, OSError) as error:
        reason = str(error) if isinstance(error, OSError) else repr(error)
        raise UserError(f"{folder}: what was asked cannot be read again: {reason}") from error


_PICTURE_FIELDS = ("name", "split", "category", "subcategory")


def _keep(folder: Path, asked: Asked, settings: EvaluationSettings, generation: GenerationSettings) -> None:
    """Write down what is asked before the first question: from then on nothing else is needed."""
    from vargpt_lightning.evaluation.base.files import digest, keep_pictures

    if asked.training_pictures is not None:
        asked.training_pictures.save(folder)
    keep_pictures(folder, asked.pictures, {picture.key: digest(picture.image) for picture in asked.pictures})
    rows = {"questions": [asdict(row) for row in asked.questions], "drawings": [asdict(row) for row in asked.drawings]}
    kept: dict[str, Any] = {"settings": asdict(settings), "generation": asdict(generation)}
    kept |= {"training_answers": asked.training_answers}
    kept |= {"training_prompts": asked.training_prompts, "talks": [asdict(talk) for talk in asked.talks]}
    kept |= {"repeats": asked.repeats}
    kept |= {"edits": [asdict(edit) for edit in asked.edits]}
    write_json(folder / ASKED, {**kept, **rows})


def sampling_of(assistant: Assistant) -> dict[str, Any]:
    """The settings that an answer depends on."""
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    words = asdict(replace(assistant.settings, visual=None))
    for key in ("visual", "batch_size", "keep_scales", "keep_logits"):
        words.pop(key)
    if not words["size"]:
        del words["size"]  # as before there was this setting
    return {**visual.recorded(), "text": words}


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Print the headline figures with their baselines as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = Table(box=None, pad_edge=False)
    for name in ("metric", "value", "baseline"):
        rows.add_column(name, overflow="fold")
    for figure in metrics.get("headline", []):
        rows.add_row(*(escape(str(figure.get(key, ""))) for key in ("name", "text", "baseline")))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(rows)
