"""Which benchmarks an experiment asks at the ends of its stages, and of what."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.callbacks.benchmarks import StageBenchmarks
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.evaluation import benchmarks
from vargpt_lightning.evaluation.harness.data import check_data, find_data
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings
from vargpt_lightning.evaluation.systems.own import OwnSystem
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.inference.assistant import Assistant
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.training.data.samples import generation_settings


class StageBenchmarkRuns:
    """The benchmarks of an experiment's section `evaluation.benchmarks`, their data found and looked at.

    Raises:
        UserError: data are missing or of another benchmark; told before anything is trained.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.config = experiment, experiment.evaluation.benchmarks
        config = self.config
        modules = [benchmarks.get(name) for name in config.names]
        found = find_data(modules, Path(str(config.data)), None) if modules else {}
        self.settings = BenchmarkSettings(
            protocols=(config.protocol,), style=config.style, limit=config.limit, batch_size=config.batch_size
        )
        check_data(modules, found, config.style, (config.protocol,))
        self.data = {module: found[module.NAME] for module in modules}

    def callbacks(
        self, stage: Stage, folder: StageFolder, model: VARGPT, tokenizer: TextTokenizer
    ) -> list[StageBenchmarks]:
        """The callback of a stage, where it is one that ends with benchmarks."""
        chosen = self.config.stages
        wanted = stage.name in chosen if chosen is not None else stage.head != "tokenizer"
        if not self.data or not wanted:
            return []

        def system() -> OwnSystem:
            settings = generation_settings(self.experiment, model)
            assistant = Assistant(model=model, tokenizer=tokenizer, settings=settings)
            return OwnSystem(assistant, f"{self.experiment.run.name}/{stage.name}")

        return [StageBenchmarks(folder, system, self.data, self.settings)]
