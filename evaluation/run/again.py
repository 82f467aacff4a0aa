"""A run evaluated again, without its data: by asking its model, or by scoring the answers that there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.run.benchmark_results import score_own_answers
from vargpt_lightning.evaluation.run.examine import Asked, check_asked, examine, sampling_of
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import different, plain, read_json

if TYPE_CHECKING:  # refusals must not wait for torch
    from vargpt_lightning.evaluation.run.runner import EvaluationSettings
    from vargpt_lightning.inference.assistant import Assistant


def examine_again(
    run: RunFolder,
    assistant: Assistant,
    asked: Asked,
    settings: EvaluationSettings,
    out: Path | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Ask a run's model what it was asked before, and return the figures; an evaluation that was killed resumes.

    Args:
        out: another folder for the figures; the run's own stay.
        replace: write over the figures of other weights or settings in `out`.

    Raises:
        UserError: `out` holds such figures.
    """
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress

    if out is not None and not replace:
        _check_free(out, assistant)
    if out is None and run.metrics().get("complete"):
        for name in ("answers", "drawings", "reconstructions"):
            (run.evaluation / f"{name}.jsonl").unlink(missing_ok=True)
    with benchmark_progress() as progress:
        return examine(run, assistant, asked, settings, out, progress)


def _check_free(out: Path, assistant: Assistant) -> None:
    """Refuse a folder with the figures of other weights, or of other settings: a figure must not change its meaning."""
    if not (out / "inputs.json").is_file():
        return
    before, now = read_json(out / "inputs.json"), {"model": assistant.digest, "sampling": plain(sampling_of(assistant))}
    for key, value in now.items():
        if before.get(key) != value:
            old, new = different(before.get(key), value)
            raise UserError(
                f"{out} holds the metrics of another {key}: {old}, and this is {new}; expected another --out, or "
                "--replace to write over them"
            )


def score_again(run: RunFolder, out: Path | None = None) -> dict[str, Any]:
    """Score the answers that a run has, rebuild its report, and return the figures.

    Args:
        out: a folder with another evaluation of the run, which is scored instead; the report stays as it is.
    """
    from vargpt_lightning.evaluation.reports.report import build_report
    from vargpt_lightning.evaluation.run.scoring import score_folder

    if out is not None:
        check_asked(out)
        return score_folder(out)
    metrics = score_folder(run.evaluation)
    score_own_answers(run)
    build_report(run)
    return metrics
