"""The model between the stages of a run: loaded, made ready for a stage, made whole again, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vargpt_lightning.callbacks.batch_rng import seed_everything_at, seed_of
from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import choose, describe, initialise
from vargpt_lightning.checkpoints.stage_weights import load_weights, save_weights, stage_weights
from vargpt_lightning.distributed.fsdp1 import FlatSharding
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.distributed.tensors import whole
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.language.lora import merge_adapters
from vargpt_lightning.modules.trainable import attach_adapters_of, freeze_for
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.trainer import is_sharded
from vargpt_lightning.utils.files import write_json


class StageWeights:
    """The model that the stages of a run train one after the other.

    Attributes:
        model: in memory; without memory (on the meta device) where the next stage spreads it over the processes.
        deferred: the weights of a model that has no memory yet.
    """

    model: VARGPT

    def __init__(self, experiment: Experiment, run: RunFolder, processes: Processes) -> None:
        self.experiment, self.run, self.processes = experiment, run, processes
        self._has: Path | None = None  # the file whose weights the model in memory has
        self.deferred: DeferredWeights | None = None

    def load_before(self, stage: Stage, before: StageFolder | None) -> None:
        """Make the model as the stage before has left it, or as the first one begins."""
        experiment = self.experiment
        if is_sharded(experiment.trainer, stage) and experiment.trainer.strategy == "fsdp2":
            weights = DeferredWeights(experiment.model, seed_of(experiment.seed, "weights"))
            self.deferred, self.model, self._has = weights, weights.model, None
            if before is not None:
                weights.take(stage_weights(self.model, before.weights))
            elif experiment.init_from:
                chosen, report = choose(self.model, experiment.init_from, experiment.seed)
                weights.take(chosen)
                self._report(report)
        elif before is None or self._has != before.weights:
            self.model = self._before(stage, tell=True)

    def fill_encoders(self) -> None:
        """Give memory to what the data are prepared with, where the model has none yet."""
        if self.deferred is not None:
            self.deferred.fill_parts("vision_tower", "image_tokenizer")

    def make_ready(self, stage: Stage, device: torch.device) -> None:
        """Make of the model what the stage trains; adapters begin alike whatever was drawn before."""
        deferred, self.deferred = self.deferred, None
        if deferred is not None:
            seed = seed_of(self.experiment.seed, stage.name)
            deferred.change(lambda model: attach_adapters_of(model, stage), seed)
            # what will be in few bits is packed from whole weights
            deferred.fill_parts(*(part for name in stage.frozen_bits for part in SUBMODULES[name]))
        else:
            seed_everything_at(self.experiment.seed, stage.name)
            attach_adapters_of(self.model, stage)
        freeze_for(self.model, stage, device)

    def save(self, stage: Stage, folder: StageFolder, strategy: Any) -> None:
        """Write what the stage has trained as plain weights: adapters merged, frozen weights as they were before."""
        again = bool(stage.frozen_bits) or isinstance(strategy, FlatSharding)
        if again:
            self.model = self._whole_again(stage, strategy)
        if stage.lora:
            merge_adapters(self.model.language_model)
        save_weights(self.model, folder, self._with_tower(stage), self.processes.first)
        self.processes.wait()
        self._has = folder.weights if again or not is_sharded(self.experiment.trainer, stage) else None

    def load_whole(self, folder: StageFolder) -> VARGPT:
        """Return the whole model that a stage has left, on the CPU, where this process has kept a part of it."""
        if self._has is None:
            del self.model
            self.model = self._new_model()
            load_weights(self.model, folder.weights)
        return self.model

    def _new_model(self) -> VARGPT:
        seed_everything_at(self.experiment.seed, "weights")
        return VARGPT(self.experiment.model)

    def _before(self, stage: Stage, tell: bool = False) -> VARGPT:
        """Return a whole model with the weights that a stage begins with."""
        model, place = self._new_model(), self.experiment.stages.index(stage)
        if place:
            load_weights(model, self.run.stage(place, self.experiment.stages[place - 1].name).weights)
        elif self.experiment.init_from:
            report = initialise(model, self.experiment.init_from, self.experiment.seed)
            if tell:
                self._report(report)
        return model

    def _report(self, report: dict[str, Any]) -> None:
        """Tell and keep where the weights come from that the section init_from names."""
        if self.processes.first:
            write_json(self.run.path / "init_from.json", report)
            self.processes.say("\n".join(["first weights:", *(f"  {line}" for line in describe(report))]))

    def _whole_again(self, stage: Stage, strategy: Any) -> VARGPT:
        """Return a model with what the stage has trained beside the frozen weights as they were before it."""
        if isinstance(strategy, FlatSharding):
            trained = {name: value.cpu() for name, value in strategy.trained_weights()}
        else:
            parameters = self.model.named_parameters(remove_duplicate=False)
            frozen = {name for name, parameter in parameters if not parameter.requires_grad}
            state = self.model.state_dict()
            trained = {name: whole(value.detach()).cpu() for name, value in state.items() if name not in frozen}
        model = self._before(stage)
        attach_adapters_of(model, stage)
        model.load_state_dict(trained, strict=False)
        return model

    def _with_tower(self, stage: Stage) -> bool:
        """Whether the tower's weights are kept with the model's: a package's are not, unless they were trained."""
        vision = self.experiment.model.vision
        so_far = self.experiment.stages[: self.experiment.stages.index(stage) + 1]
        given = "vision_tower" in self.experiment.init_from.places()
        trained = given or any("vision_tower" in each.train for each in so_far)
        return trained or vision.kind != "efficientnet_lite0" or not vision.pretrained
