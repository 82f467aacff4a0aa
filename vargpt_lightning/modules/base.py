"""What the modules of all stages share: the model, the optimizer of the stage, the counts and logs of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.distributed.protocol import Sharding
from vargpt_lightning.models.core.shared_random import RankInvariantRng
from vargpt_lightning.modules.finite import NonFiniteGuard, as_plain, gradient_norm
from vargpt_lightning.modules.metrics import NamedMeans
from vargpt_lightning.modules.optim.optimizers import build_optimizer, build_schedule
from vargpt_lightning.modules.step_counts import SHARE, Share
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError

Batch = Mapping[str, Any]
Values = Mapping[str, Tensor | float | None]


@runtime_checkable
class CountsSteps(Protocol):
    """A data module that knows how many optimizer steps its stage has."""

    @property
    def total_steps(self) -> int: ...


class StageModule(pl.LightningModule):
    """A stage's training of a VARGPT; which submodules are trained is the stage scheduler's affair.

    Training values are logged as means over the samples or tokens since the row before, of all processes, every
    `log_every_n_steps` steps and after the last one; what had nothing to count in between has no value in the row.

    Args:
        vargpt: the model, shared by the modules of all stages.
        stage: the stage's settings.
        total_steps: optimizer steps of the stage, for the schedule; None takes the trainer's `max_steps`.
        guard: looks at losses and gradients; None stops training at one that is not finite.
        first_weights: of a model that gets its memory when it is sharded.
    """

    # The tower of the default comes with its package; checkpoints need not carry it.
    strict_loading = False

    def __init__(
        self,
        vargpt: VARGPT,
        stage: Stage,
        total_steps: int | None = None,
        guard: NonFiniteGuard | None = None,
        first_weights: DeferredWeights | None = None,
    ) -> None:
        super().__init__()
        self.vargpt = vargpt
        self.stage = stage
        self._total_steps = total_steps
        self.last_counts: dict[str, int] = {"text_tokens": 0, "image_tokens": 0, "samples": 0}
        self.means = NamedMeans([*self.mean_names(), "grad_norm"])
        self._row_seed = 0
        self._row_state: Tensor | None = None
        self.step_is_covered = True  # see `Share.covered`
        self.guard = guard or NonFiniteGuard()
        self.first_weights = first_weights
        self.first_step = 0  # of the stage, where a fit trains several

    def mean_names(self) -> list[str]:
        """Return the names of all values that a training step may log; a module that logs others adds them here."""
        return []

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the stage: as the module was told, else the trainer's, else those of the data module.

        Raises:
            UserError: none of them knows.
        """
        steps = self.trainer.max_steps if self._total_steps is None else self._total_steps
        if steps < 1:
            data = getattr(self.trainer, "datamodule", None)  # Lightning keeps it there without a type
            steps = data.total_steps if isinstance(data, CountsSteps) else steps
        if steps < 1:
            raise UserError(f"trainer.max_steps={steps}; expected the optimizer steps of stage {self.stage.name!r}")
        return steps

    @property
    def stage_step(self) -> int:
        """Optimizer steps that the stage has taken."""
        return self.global_step - self.first_step

    def seed_rows(self, seed: int) -> None:
        """Take the seed of draws that all processes make alike, before each batch."""
        self._row_seed = seed

    def configure_model(self) -> None:
        """Spread the model over the processes, where the strategy does."""
        if isinstance(strategy := self.trainer.strategy, Sharding):
            strategy.shard(self.vargpt, self.first_weights)
            self.first_weights = None

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.stage.optimizer)
        schedule = build_schedule(optimizer, self.total_steps, self.stage.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out a tower that is not trained: it comes with its package, or with the stage before."""
        tower = self.vargpt.vision_tower
        if tower is not None and not any(parameter.requires_grad for parameter in tower.parameters()):
            weights = checkpoint["state_dict"]
            for name in [name for name in weights if name.startswith("vargpt.vision_tower.")]:
                del weights[name]
        checkpoint["skipped_steps"] = self.guard.skipped
        checkpoint["code_hits"] = self.vargpt.image_tokenizer.counts()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what is counted of the codes where it was."""
        self.guard.skipped = checkpoint.get("skipped_steps", 0)
        if "code_hits" in checkpoint:
            self.vargpt.image_tokenizer.take_counts(checkpoint["code_hits"])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule and write the row of values: the one hook that follows each optimizer step and no other."""
        rate = scheduler.get_last_lr()[0]
        super().lr_scheduler_step(scheduler, metric)
        step = self.stage_step
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 or step >= self.total_steps:
            self._write_row({"train/lr": rate}, self.global_step)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        share = self.share_of(batch)
        self.step_is_covered = share is None or share.covered
        self.guard.begin(batch, first=batch_idx % self.trainer.accumulate_grad_batches == 0)

    def on_validation_epoch_end(self) -> None:
        self.free_gathered()

    def free_gathered(self) -> None:
        """Free weights that a sharded model has gathered for a forward pass which no backward pass has followed.

        They would be taken for the next pass's, and hide the shards from what looks at the parameters.
        """
        for module in self.vargpt.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        if isinstance(strategy := self.trainer.strategy, Sharding):
            strategy.free_gathered()

    def on_before_backward(self, loss: Tensor) -> None:
        self.guard.note(loss)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradient's norm over all processes' shards; no step is taken with one that is no number."""
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        sharding = self.trainer.strategy
        if isinstance(sharding, Sharding):
            sharding.drop_unused(parameters)
        norm = gradient_norm(parameters)
        if isinstance(sharding, Sharding):
            norm = sharding.total_norm(norm)
        shown = as_plain(norm)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not self.guard.passes(None if scaled else shown, self.stage_step, self.stage.name):
            for parameter in parameters:
                parameter.grad = None
            return
        self.means.update({"grad_norm": shown}, {"grad_norm": 1})
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def share_of(self, batch: Batch) -> Share | None:
        """Return what a batch is of its optimizer step; None for one that stands by itself."""
        share: Share | None = batch.get(SHARE)
        return share

    def draws(self, share: Share | None) -> RankInvariantRng | None:
        """Return where the draws of a batch's drawn pictures come from, so that all processes' fit together.

        The first process draws from torch's own stream, the others from one of their own that is seeded alike.
        """
        if share is None or share.batch.rows == share.own.rows:
            return None
        generator = None
        if share.before.rows:
            generator = torch.Generator(self.device).manual_seed(self._row_seed)
            if self._row_state is not None:
                generator.set_state(self._row_state)
                self._row_state = None
        before, own = share.before.drawn, share.own.drawn
        return RankInvariantRng(before, own, share.batch.drawn - before - own, generator)

    @contextmanager
    def as_first_process(self) -> Iterator[None]:
        """Draw in the block what the first process draws in it; a batch's `draws` go on from there."""
        if self.global_rank == 0:
            yield
            return
        gpu = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if gpu else []):
            torch.manual_seed(self._row_seed)
            yield
            self._row_state = torch.cuda.get_rng_state(self.device) if gpu else torch.get_rng_state()

    def log_losses(
        self, values: Values, split: str, samples: int, tokens: Mapping[str, Tensor | int] | None = None
    ) -> None:
        """Log what there is of a batch's values as `split/name`.

        Args:
            values: means over the batch by name, in training of `mean_names`; None for what the batch has nothing of.
            split: "train" or "val".
            samples: what values are weighted with that are not of tokens.
            tokens: "text" and "image" to their numbers in the batch: the weights of `text_...` and `image_...`.
        """
        counted: dict[str, Tensor | float] = {}
        weights: dict[str, int] = {}
        for name, value in values.items():
            weight = int((tokens or {}).get(name.split("_")[0], samples))
            if value is None or weight < 1:
                continue
            counted[name] = value.detach() if isinstance(value, Tensor) else value
            weights[name] = weight
        if split == "train":
            self.means.update(counted, weights)
        for name, value in counted.items():
            shown = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float32)
            if split == "train":  # for the bar
                self.log(f"train/{name}", shown, on_step=True, on_epoch=False, logger=False, batch_size=weights[name])
            else:
                self.log(f"{split}/{name}", shown, on_epoch=True, batch_size=weights[name], sync_dist=True)

    def _write_row(self, row: dict[str, float], step: int) -> None:
        self.means.touched()  # a process whose batches trained nothing takes part too, without a warning
        row |= {f"train/{name}": float(mean) for name, mean in self.means.compute().items()}
        self.means.reset()
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=step - 1)  # Lightning counts steps from 0


def samples_of(batch: Batch) -> int:
    """Return how many records a batch has: as many as rows, unless it says that they are packed."""
    return int(batch.get("samples", len(batch["input_ids"])))


def share(correct: Tensor | int, total: Tensor | int) -> Tensor | None:
    """Return correct / total, None where there is nothing to count."""
    count = int(total)
    return torch.as_tensor(correct).float() / count if count else None
