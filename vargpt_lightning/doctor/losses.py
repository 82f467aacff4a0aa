"""The debug recipe's losses on a device beside those that a processor has had, which are kept in losses.json.

`python -m vargpt_lightning.doctor.losses` writes that file anew, after a change of the recipe or of what it computes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vargpt_lightning.doctor.findings import Check, Fault, NotHere
from vargpt_lightning.utils.files import write_json

PART = "training"
KEPT = Path(__file__).with_name("losses.json")
RECIPE = Path(__file__).resolve().parents[2] / "experiments" / "debug.yaml"
STEADY = (
    # what draws random numbers on the device draws others on each kind of device
    *("--model.prompt_dropout", "0", "--model.vision.dropout", "0", "--model.decoder.class_dropout", "0"),
    *("--trainer.log_every", "1", "--trainer.validate", "0", "--trainer.samples", "0", "--evaluation.enabled", "false"),
)
TOLERANCE = {"32-true": 0.003, "bf16-mixed": 0.015}
"""How far a stage's losses may be from the kept ones, relative to these, by precision."""
CODES = 10
"""Times as far where codes play a part: a rounding lays the codebook otherwise, between processors too."""
OF_CODES = ("codebook_loss", "commitment_loss", "image_loss")
SECONDS = 600
LOGGED = ("codebook_loss", "commitment_loss", "l1", "mse", "text_loss", "image_loss")

Losses = dict[str, dict[str, list[float]]]
"""Stage -> loss -> its values, a step each."""


def loss_checks(device: str, precisions: tuple[str, ...] | None = None) -> Iterator[Check]:
    """The checks of training on a device, by default in 32 bits, and on a GPU in bfloat16 too."""
    if precisions is None:
        precisions = ("32-true",) if device == "cpu" else ("32-true", "bf16-mixed")
    for precision in precisions:
        yield Check(PART, f"losses of the debug recipe, {precision}", partial(compare_losses, device, precision))


def compare_losses(device: str, precision: str) -> str:
    """Train all stages of the debug recipe, and compare their losses with those of a processor.

    Raises:
        Fault: a loss is farther away than rounding explains.
        NotHere: this is no checkout of the repository, or the GPU has no bfloat16.
    """
    import torch

    if precision.startswith("bf16") and device != "cpu" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise NotHere("this GPU has no bfloat16")
    with tempfile.TemporaryDirectory(prefix="vargpt-doctor-") as folder:
        run = fit(Path(folder), *accelerator(device), "--trainer.precision", precision)
        return judge(losses_of(run), kept_losses(), TOLERANCE[precision])


def kept_losses() -> Losses:
    """The losses that a processor has had."""
    found: Losses = json.loads(KEPT.read_text(encoding="utf-8"))["losses"]
    return found


def accelerator(device: str) -> tuple[str, str]:
    """The option of `vargpt fit` that trains on a kind of device."""
    return ("--trainer.accelerator", "cpu" if device == "cpu" else "gpu")


def fit(folder: Path, *options: str) -> Path:
    """Train the debug recipe's stages in a folder, by the command in a process of its own; return the run.

    Raises:
        Fault: the command fails; what it says last.
        NotHere: this is no checkout of the repository.
    """
    command = fit_command(folder, *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=own_environment())
    if done.returncode:
        raise Fault(
            f"vargpt fit {' '.join(options)} ends with {done.returncode}: {last_line(done.stderr or done.stdout)}"
        )
    return folder / "debug"


def fit_command(folder: Path, *options: str) -> list[str]:
    """The command line that trains the debug recipe in a folder. Raises NotHere outside of a checkout."""
    if not RECIPE.is_file():
        raise NotHere("experiments/debug.yaml comes with a checkout of the repository")
    program = [sys.executable, "-m", "vargpt_lightning.cli", "fit", "-c", str(RECIPE)]
    return [*program, *STEADY, "--run.root", str(folder), *options]


def own_environment() -> dict[str, str]:
    """The environment without what says that a process is one of several, as in a job of Slurm's or torchrun's."""
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    jobs = ("SLURM_", "TORCHELASTIC_")
    return {name: text for name, text in os.environ.items() if name not in ranks and not name.startswith(jobs)}


def last_line(text: str) -> str:
    """What a process has said last."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")[:300]


def losses_of(run: Path) -> Losses:
    """The training losses that a run has logged."""
    from vargpt_lightning.runs.folder import RunFolder

    found: Losses = {}
    for stage in RunFolder(run).stages():
        for row in stage.metrics():
            if (name := row.name.removeprefix("train/")) in LOGGED:
                found.setdefault(stage.name, {}).setdefault(name, []).append(row.value)
    return found


def judge(found: Losses, kept: Losses, tolerance: float) -> str:
    """Compare the courses of all losses over each stage's steps.

    Raises:
        Fault: a stage or loss is missing, is no number, or is farther away than the tolerance, relative to the kept.
    """
    worst = {False: 0.0, True: 0.0}
    for stage, losses in kept.items():
        for name, values in losses.items():
            own, codes = found.get(stage, {}).get(name, []), name in OF_CODES
            if len(own) != len(values):
                raise Fault(f"{stage}: {name} was logged {len(own)} times, expected {len(values)}")
            off, most = _off(own, values), tolerance * (CODES if codes else 1)
            if not off <= most:
                raise Fault(
                    f"{stage}: {name} is off by {100 * off:.2g} %, {_mean(own):.4f} on average where a processor has "
                    f"{_mean(values):.4f}; expected at most {100 * most:g} %"
                )
            worst[codes] = max(worst[codes], off)
    plain, coded = (f"{100 * worst[codes]:.1g} %" for codes in (False, True))
    return f"{len(kept)} stages, off by {plain} at most, and by {coded} where codes count"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _off(own: list[float], kept: list[float]) -> float:
    """The mean distance of two courses of a loss, relative to the kept one; infinite for what is no number."""
    distance = sum(abs(one - other) for one, other in zip(own, kept, strict=True)) / sum(map(abs, kept))
    return distance if math.isfinite(distance) else math.inf


def keep(losses: Mapping[str, Any]) -> None:
    """Write the file of kept losses."""
    from vargpt_lightning.runs.provenance import package_versions

    rounded = {
        stage: {name: [float(f"{value:.6g}") for value in values] for name, values in each.items()}
        for stage, each in losses.items()
    }
    write_json(KEPT, {"version": 1, "versions": package_versions(), "losses": rounded})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        keep(losses_of(fit(Path(made), *accelerator("cpu"))))
