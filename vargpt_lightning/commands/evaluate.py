"""`vargpt evaluate`: ask a run's model everything that evaluation asks, score it, and write the report.

With `--benchmarks` any system is asked public benchmarks instead (`commands/benchmarks.py`), and `vargpt evaluate
images` measures generated pictures (`commands/evaluate_images.py`).

What is asked is kept in RUN/evaluation/asked.json, with the settings, and the real pictures beside it: a run can be
evaluated again without its data, and a killed evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands import benchmarks
from vargpt_lightning.commands.arguments import Parser
from vargpt_lightning.commands.benchmark_results import score_own_answers
from vargpt_lightning.commands.generate import add_sampling, generation_settings
from vargpt_lightning.commands.names import finished_stage
from vargpt_lightning.commands.paths import output_folder
from vargpt_lightning.commands.progress import importing, working
from vargpt_lightning.devices import choose
from vargpt_lightning.errors import UserError
from vargpt_lightning.results import RunFolder, read_json, read_jsonl, write_json

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.evaluation.adapters.ours import Speaker
    from vargpt_lightning.evaluation.protocols import Drawing, Question, RealPicture
    from vargpt_lightning.evaluation.runner import EvaluationSettings, Progress
    from vargpt_lightning.models.answers import GenerationSettings

ASKED = "asked.json"
SCALE_STRIPS = 8  # drawings kept with the pictures after each scale; decoding these takes as long as drawing
EXAMPLE = """examples:
  vargpt evaluate runs/openmoji
  vargpt evaluate runs/openmoji --cfg 3 --out cfg3
  vargpt evaluate llava-hf/llava-1.5-7b-hf --benchmarks mme,pope --data data --limit 100
  torchrun --nproc-per-node 8 -m vargpt_lightning.cli evaluate runs/7b --benchmarks all --data data
  vargpt evaluate images --help
  vargpt evaluate export --benchmarks mme --data data --out for-others
"""
IMAGES = "images"
EXPORT = "export"


@dataclass(frozen=True)
class Asked:
    """All that an evaluation asks; arguments as for `evaluation.runner.evaluate`."""

    questions: Sequence[Question]
    drawings: Sequence[Drawing]
    pictures: Sequence[RealPicture]
    training_answers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def examine(
    run: RunFolder,
    speaker: Speaker,
    asked: Asked,
    settings: EvaluationSettings | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model into a run's folder, write the report, and return the figures.

    Args:
        speaker: the model; its generation settings are kept beside the questions.
        out: another folder for the evaluation; the run's own evaluation and report stay as they are.
        progress: called with a title, how many are done and how many there are.
    """
    from vargpt_lightning.evaluation.report import build_report
    from vargpt_lightning.evaluation.runner import EvaluationSettings, evaluate

    settings = settings or EvaluationSettings()
    folder = out or run.evaluation
    began = time.monotonic()
    _keep(folder, asked, settings, speaker.settings)
    step = max(1, len(asked.drawings) // SCALE_STRIPS)
    chosen = [(drawing.prompt, drawing.seed) for drawing in asked.drawings[::step]]
    metrics = evaluate(
        speaker,
        replace(speaker, scales_for=frozenset(chosen[:SCALE_STRIPS])),
        questions=asked.questions,
        drawings=asked.drawings,
        pictures=asked.pictures,
        training_answers=asked.training_answers,
        out=folder,
        settings=settings,
        model=speaker.digest,
        sampling=_sampling(speaker),
        reconstruct=speaker.reconstruct,
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
    from vargpt_lightning.evaluation.files import open_picture
    from vargpt_lightning.evaluation.protocols import Drawing, Question, RealPicture
    from vargpt_lightning.evaluation.runner import EvaluationSettings
    from vargpt_lightning.models.answers import GenerationSettings
    from vargpt_lightning.models.sampling import SamplingSettings

    kept = read_json(folder / ASKED)
    try:
        questions = [Question(**{**row, "options": tuple(row["options"])}) for row in kept["questions"]]
        drawings = [Drawing(**row) for row in kept["drawings"]]
        pictures = [
            RealPicture(row["id"], open_picture(folder, row), *(row[key] for key in _PICTURE_FIELDS))
            for row in read_jsonl(folder / "pictures.jsonl")
        ]
        generation = dict(kept["generation"])
        visual = generation.pop("visual")
        words = GenerationSettings(**generation, visual=visual and SamplingSettings(**visual))
        asked = Asked(questions, drawings, pictures, kept["training_answers"])
        return asked, EvaluationSettings(**kept["settings"]), words
    except (KeyError, TypeError, AttributeError, OSError) as error:
        reason = str(error) if isinstance(error, OSError) else repr(error)
        raise UserError(f"{folder}: what was asked cannot be read again: {reason}") from error


_PICTURE_FIELDS = ("name", "split", "category", "subcategory")


def _keep(folder: Path, asked: Asked, settings: EvaluationSettings, generation: GenerationSettings) -> None:
    """Write down what is asked before the first question: from then on nothing else is needed."""
    from vargpt_lightning.evaluation.files import digest, keep_pictures

    keep_pictures(folder, asked.pictures, {picture.key: digest(picture.image) for picture in asked.pictures})
    rows = {"questions": [asdict(row) for row in asked.questions], "drawings": [asdict(row) for row in asked.drawings]}
    kept = {"settings": asdict(settings), "generation": asdict(generation), "training_answers": asked.training_answers}
    write_json(folder / ASKED, {**kept, **rows})


def _sampling(speaker: Speaker) -> dict[str, Any]:
    """The settings that an answer depends on."""
    visual = speaker.settings.visual or speaker.model.sampling_settings()
    words = asdict(replace(speaker.settings, visual=None))
    for key in ("visual", "batch_size", "keep_scales"):
        words.pop(key)
    return {**asdict(visual), "text": words}


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt evaluate",
        description="Evaluate a finished run again and rebuild its report, or run public benchmarks on any model. An "
        "interrupted command resumes when run again. `vargpt evaluate images` measures generated pictures.",
        epilog=EXAMPLE,
    )
    result.add_argument(
        "run", metavar="MODEL", help="the run folder; for benchmarks also a model's directory, hub id or endpoint"
    )
    result.add_argument("--out", type=Path, metavar="DIR", help="another folder for the figures; a run's own stay")
    benchmarks.add_options(result.add_argument_group("benchmarks"))
    again = result.add_argument_group("a run")
    again.add_argument("--report-only", action="store_true", help="score the answers there are and rebuild the report")
    add_sampling(again)
    return result


def main(argv: list[str]) -> int:
    """Evaluate and print the figures."""
    if argv[:1] == [IMAGES]:
        from vargpt_lightning.commands.evaluate_images import main as measure_images

        return measure_images(argv[1:])
    if argv[:1] == [EXPORT]:
        from vargpt_lightning.commands.evaluate_export import main as export

        return export(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.benchmarks is not None:
        _refuse(arguments, _RUN_OPTIONS, "have no meaning with --benchmarks")
        return benchmarks.run(arguments)
    _refuse(arguments, _BENCHMARK_OPTIONS, "need --benchmarks")
    if arguments.out is None:
        _refuse(arguments, _SAMPLING_OPTIONS, "need --out DIR: a run's own figures are made with its own settings")
    run = RunFolder(arguments.run)
    if arguments.out is not None:
        output_folder(arguments.out)
    metrics = _rescore(run, arguments.out) if arguments.report_only else _again(run, arguments)
    print_figures(metrics)
    print(f"report: {run.report}" if arguments.out is None else f"figures: {arguments.out / 'metrics.json'}")
    if arguments.out is None and run.benchmark_report.is_file():
        print(f"benchmarks: {run.benchmark_report}")
    return 0


_SAMPLING_OPTIONS = ("top_k", "top_p", "cfg", "temperature", "text_temperature", "seed")
_RUN_OPTIONS = ("report_only", *_SAMPLING_OPTIONS)
_BENCHMARK_OPTIONS = (
    *("data", "hub_owner", "limit", "batch_size", "style", "dtype", "option"),
    *("protocol", "guess", "allow_partial"),
)


def _refuse(arguments: Any, names: Sequence[str], why: str) -> None:
    """Refuse options of the command's other use: they would have no effect."""
    values = {name: getattr(arguments, name) for name in names}
    given = [  # 0 is a value like others
        f"--{name.replace('_', '-')}"
        for name, value in values.items()
        if not (value is None or value is False or value == [])
    ]
    if given:
        raise UserError(f"{', '.join(given)} {why}")


def _again(run: RunFolder, arguments: Any) -> dict[str, Any]:
    finished_stage(run, arguments.stage)
    check_asked(run.evaluation)
    with working(f"loading {run.path}"):
        with importing():
            from vargpt_lightning.commands.loading import load_run
            from vargpt_lightning.evaluation.runner import rich_progress
        choose(arguments.device)
        asked, settings, generation = load_asked(run.evaluation)
        speaker = load_run(arguments.run, arguments.stage, arguments.device)
    speaker.settings = generation
    speaker.settings = generation_settings(speaker, arguments)
    if arguments.out is not None and not arguments.replace:
        _check_free(arguments.out, speaker)
    if arguments.out is None and run.metrics().get("complete"):
        for name in ("answers", "drawings", "reconstructions"):
            (run.evaluation / f"{name}.jsonl").unlink(missing_ok=True)
    with rich_progress() as progress:
        return examine(run, speaker, asked, settings, arguments.out, progress)


def _check_free(out: Path, speaker: Speaker) -> None:
    """Refuse a folder with the figures of other weights, or of other settings: a figure must not change its meaning."""
    from vargpt_lightning.results import different, plain

    if not (out / "inputs.json").is_file():
        return
    before, now = read_json(out / "inputs.json"), {"model": speaker.digest, "sampling": plain(_sampling(speaker))}
    for key, value in now.items():
        if before.get(key) != value:
            old, new = different(before.get(key), value)
            raise UserError(
                f"{out} holds the figures of another {key}: {old}, and this is {new}; expected another --out, or "
                "--replace to write over them"
            )


def _rescore(run: RunFolder, out: Path | None) -> dict[str, Any]:
    from vargpt_lightning.evaluation.report import build_report
    from vargpt_lightning.evaluation.scoring import score_folder

    if out is not None:
        check_asked(out)
        return score_folder(out)
    metrics = score_folder(run.evaluation)
    score_own_answers(run)
    build_report(run)
    return metrics


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Print the headline figures with their baselines as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = Table(box=None, pad_edge=False)
    for name in ("figure", "value", "baseline"):
        rows.add_column(name, overflow="fold")
    for figure in metrics.get("headline", []):
        rows.add_row(*(escape(str(figure.get(key, ""))) for key in ("name", "text", "baseline")))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(rows)
