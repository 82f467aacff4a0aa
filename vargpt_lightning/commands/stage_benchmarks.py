"""Which benchmarks an experiment asks at the ends of its stages, and of what."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.callbacks.benchmarks import StageBenchmarks
from vargpt_lightning.commands.benchmarks import check_data, find_data
from vargpt_lightning.commands.experiment import Experiment
from vargpt_lightning.commands.sample_requests import generation_settings
from vargpt_lightning.data.text_tokenizer import TextTokenizer
from vargpt_lightning.evaluation import benchmarks
from vargpt_lightning.evaluation.adapters.ours import OwnSystem, Speaker
from vargpt_lightning.evaluation.benchmark_runner import BenchmarkSettings
from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.modules.stage import Stage
from vargpt_lightning.results import StageFolder


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
            speaker = Speaker(model=model, tokenizer=tokenizer, settings=settings)
            return OwnSystem(speaker, f"{self.experiment.run.name}/{stage.name}")

        return [StageBenchmarks(folder, system, self.data, self.settings)]
