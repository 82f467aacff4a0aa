"""What takes minutes: every stage under each strategy, a run that was stopped and resumed, and an exported one."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vargpt_lightning.doctor.findings import Check, Fault, Noteworthy
from vargpt_lightning.doctor.losses import (
    SECONDS,
    TOLERANCE,
    accelerator,
    fit,
    fit_command,
    judge,
    kept_losses,
    last_line,
    losses_of,
    own_environment,
)

PART = "in full"
STRATEGIES = ("ddp", "fsdp", "fsdp2")
STAGES = ("tokenizer", "base", "pretrain", "understanding", "generation")
BATCH = 8  # of each of the recipe's stages


def full_checks(device: str) -> Iterator[Check]:
    """The checks of `vargpt doctor --full`."""
    for strategy in STRATEGIES:
        yield Check(PART, f"every stage, {strategy}", partial(strategy_losses, device, strategy))
    yield Check(PART, "stop and resume", partial(resumed, device))
    yield Check(PART, "export", partial(exported, device))


def processes_for(device: str) -> int:
    """How many processes train: two, or one where there is one GPU."""
    if device == "cpu":
        return 2
    import torch

    return min(2, torch.cuda.device_count())


def strategy_losses(device: str, strategy: str) -> str:
    """Train all stages in several processes, with the batches of one.

    Raises:
        Fault: the command fails, or a loss is not that of one process.
    """
    count = processes_for(device)
    sizes = [word for stage in STAGES for word in (f"--stages.{stage}.batch_size", str(BATCH // count))]
    with tempfile.TemporaryDirectory(prefix="vargpt-doctor-") as folder:
        options = ("--trainer.strategy", strategy, "--trainer.devices", str(count), *sizes)
        run = fit(Path(folder), *accelerator(device), *options)
        said = judge(losses_of(run), kept_losses(), TOLERANCE["32-true"])
    return f"{count} {'process' if count == 1 else 'processes'}: {said}"


def resumed(device: str) -> str:
    """Stop a training by SIGTERM in one of its stages; the same command goes on, and the losses are the same.

    Raises:
        Fault: the second command fails, or a loss is not that of an unbroken run.
    """
    with tempfile.TemporaryDirectory(prefix="vargpt-doctor-") as made:
        folder = Path(made)
        command = fit_command(folder, *accelerator(device))
        with open(folder / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=own_environment())
            _wait_for_steps(process, folder / "debug" / "stages" / f"01-{STAGES[0]}" / "metrics.csv")
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=SECONDS)
        if code not in (0, 128 + signal.SIGTERM):
            raise Fault(f"a run stopped by SIGTERM ends with {code}: {last_line((folder / 'log').read_text())}")
        run = fit(folder, *accelerator(device))
        said = judge(losses_of(run), kept_losses(), TOLERANCE["32-true"])
    return f"stopped in its first stage, {said}" if code else Noteworthy(f"it had ended before it was stopped; {said}")


def _wait_for_steps(process: subprocess.Popen[bytes], file: Path, lines: int = 12) -> None:
    """Wait until some steps of a stage are logged, or the process has ended."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        if file.is_file() and file.read_bytes().count(b"\n") > lines:
            return
        time.sleep(0.02)


def exported(device: str) -> str:
    """Export a run by `vargpt convert`, load both, and draw the same.

    Raises:
        Fault: the command fails, or drawings differ.
    """
    import torch

    from vargpt_lightning.doctor.subjects import subject_of

    with tempfile.TemporaryDirectory(prefix="vargpt-doctor-") as made:
        run, out = fit(Path(made), *accelerator(device)), Path(made) / "exported"
        command = [sys.executable, "-m", "vargpt_lightning.cli", "convert", str(run), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise Fault(f"vargpt convert ends with {done.returncode}: {last_line(done.stderr)}")
        (one,), (other,) = (subject_of(path, torch.device(device)).draw([(0, 0)]) for path in (run, out))
    if not torch.equal(one.codes, other.codes):
        raise Fault("the exported model draws other codes than the run")
    return "the exported model draws what the run draws"
