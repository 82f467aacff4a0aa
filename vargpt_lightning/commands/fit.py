"""`vargpt fit`: an experiment's stages one after the other, each of them resumable; then evaluation and report."""

from __future__ import annotations

import sys

from vargpt_lightning.experiment.help import TEXT, wanted
from vargpt_lightning.experiment.places import check_places
from vargpt_lightning.training.experiment_run import check_readers, processes_here, run_experiment
from vargpt_lightning.training.launch import end_with_parent, launch, started_by_others
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.progress import say


def main(argv: list[str]) -> int:
    """Train, evaluate, report; return the exit code: 0 finished, 128 + signal when stopped by one.

    With several devices, and nobody else who has started a process for each, they are started here.
    """
    if not argv:
        raise UserError(
            "no experiment is given; expected -c FILE, such as: vargpt fit -c experiments/openmoji.yaml; "
            "`vargpt fit --help` shows the options"
        )
    if (help_ := wanted(argv)) == "short":
        sys.stdout.write(TEXT)
        return 0
    from vargpt_lightning.experiment.parser import build_parser, load_experiment

    if help_ == "all":
        build_parser().print_help()
        return 0
    experiment = load_experiment(argv)
    check_places(experiment)
    if not started_by_others():
        stages = ", ".join(stage.name for stage in experiment.stages)
        say(f"experiment: {', '.join(experiment.files) or experiment.run.name}, stages {stages}")
        for name, reason in experiment.idle_parts().items():
            say(f"sampling.parts.{name}: changes nothing here: {reason}")
    count = processes_here(experiment)
    check_readers(experiment, count)
    if count > 1:
        return launch(["fit", *argv], count)
    end_with_parent()
    return run_experiment(experiment, ["vargpt", "fit", *argv])
