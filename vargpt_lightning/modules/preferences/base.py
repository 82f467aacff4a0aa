"""What all heads that learn from preferences share: the model's log-probabilities beside those of the reference.

Legend: B rows, Q drawn pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.models.core.losses import LogProbabilities
from vargpt_lightning.models.core.shared_random import RowStreams
from vargpt_lightning.models.vargpt import VARGPTOutput
from vargpt_lightning.modules.base import Batch, StageModule, samples_of
from vargpt_lightning.modules.preferences.contents import model_digest, row_keys
from vargpt_lightning.modules.preferences.reference import ReferenceValues
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.progress import working


@runtime_checkable
class KeepsReference(Protocol):
    """A data module with all batches of its stage, from the first on, and a folder for what is kept of them."""

    @property
    def cache(self) -> Path: ...

    def train_dataloader(self) -> Iterable[Batch]: ...

    def val_dataloader(self) -> Iterable[Batch]: ...


class Scores(Protocol):
    """The scores of rows under a reference."""

    def of(self, keys: Sequence[bytes], device: torch.device | str = "cpu", /) -> Tensor:
        """Return them, (N,) float64; raises UserError for one that is not known."""


class PreferenceModule(StageModule):
    """Training by what a model's log-probabilities are beside those of the frozen reference.

    The reference is the model as the stage finds it, which is as the stage before has left it. When a fit begins, the
    log-probability of every row that will be trained or validated is computed once, with those weights, and kept in the
    data module's cache; a second model is never in memory. A fit that was ended while it did so goes on where it was.

    Both are computed as in drawing: dropout is off, and what is random besides (hidden prompts, changed bits) follows
    from the row, so that it is the same for both.

    A head says with `rows` which rows are passed through the model for a batch, and with `scores` which number of each
    row is compared; `compared` returns both sides. What its draws depend on belongs in `depends_on`.
    """

    reference: Scores | None = None
    drawn_at = -1  # the step that random draws are made for; before the first one in validation
    _digest: str | None = None
    _warned = False

    def rows(self, batch: Batch) -> dict[str, Any]:
        """Return what is passed through the model for a batch; by default the batch."""
        return dict(batch)

    def scores(self, found: LogProbabilities) -> Tensor:
        """Return each row's number that is compared with the reference's: (B,) float64; by default the answers' sum."""
        return found.of_answers()

    def hidden(self, rows: Batch) -> Tensor:
        """Return the pictures whose prompt is hidden, (Q,); by default none."""
        pictures = next((rows[key] for key in ("drawn_indices", "drawn_pixels") if rows.get(key) is not None), ())
        return torch.zeros(len(pictures), dtype=torch.bool, device=rows["input_ids"].device)

    def depends_on(self) -> dict[str, Any]:
        """Return the settings that a row's log-probability depends on, besides the row and the weights."""
        correction = self.stage.self_correction
        return {"head": self.stage.head, "model": self.vargpt.config.to_dict(), "correction": correction}

    def draw_keys(self, keys: list[bytes]) -> list[bytes]:
        """Return what the random changes of each row follow from, of the rows' keys; by default these."""
        return keys

    def forward(self, rows: Batch) -> VARGPTOutput:
        correction, streams = self.stage.self_correction, None
        self.vargpt.eval()  # and not `set_modes`: a dropped unit is noise in the ratio of the two
        if correction is not None:
            streams = RowStreams(self._seeds(rows))
        self.vargpt.training = correction is not None
        return self.vargpt(
            rows, log_probabilities=True, hidden_Q=self.hidden(rows), generator=streams, correction=correction
        )

    def compared(self, rows: Batch) -> tuple[VARGPTOutput, Tensor, Tensor]:
        """Return the output of rows, their scores (B,), and their scores under the reference (B,), both float64.

        Raises:
            UserError: the reference's are not there.
        """
        output = self(rows)
        return output, self.scores(self.found(output)), self.of_reference(rows)

    def of_reference(self, rows: Batch) -> Tensor:
        """Return the scores of rows under the reference: (B,) float64, 0 in idle rows; raises as `compared` does."""
        device = rows["input_ids"].device
        if self.reference is None:
            raise UserError(
                f"stages.{self.stage.name}.head={self.stage.head}: nothing is known of the reference; expected a fit "
                "with a data module, such as VARGPTDataModule"
            )
        found_B = torch.zeros(len(rows["input_ids"]), dtype=torch.float64, device=device)
        keys = self.keys(rows)
        found_B[: len(keys)] = self.reference.of(keys, device)
        return found_B

    def found(self, output: VARGPTOutput) -> LogProbabilities:
        """Return the log-probabilities of an output."""
        assert output.log_probabilities is not None
        return output.log_probabilities

    def count(self, batch: Batch, output: VARGPTOutput, samples: int) -> None:
        """Note what a training batch has had, for the throughput."""
        found = self.found(output)
        self.last_counts = {
            "text_tokens": int(found.trained_BT.sum()),
            "image_tokens": 0 if found.image_QL is None else found.image_QL.numel(),
            "samples": samples,
            "tokens": batch.get("tokens", 0),
            "positions": batch.get("positions", 0),
        }

    def keys(self, rows: Batch) -> list[bytes]:
        """Return the keys of rows, those of an idle row at the end left out."""
        return row_keys(rows, self.vargpt)[: self.own_rows(rows)]

    def own_rows(self, rows: Batch) -> int:
        """Return how many rows are not idle."""
        part = self.share_of(rows)
        return part.own.rows if part else samples_of(rows)

    def on_fit_start(self) -> None:
        self._prepare_reference()

    def on_train_epoch_start(self) -> None:
        """Prepare where a fit goes on to this stage from another."""
        self._prepare_reference()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.drawn_at = self.stage_step

    def on_validation_epoch_start(self) -> None:
        self.drawn_at = -1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference"] = self._digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The weights are the reference's no more: what it is known by was noted when they were."""
        super().on_load_checkpoint(checkpoint)
        self._digest = checkpoint.get("reference")

    def of_several(self, batch: Batch) -> bool:
        """Tell whether other processes have parts of the batch."""
        part = self.share_of(batch)
        return part is not None and part.batch.rows != part.own.rows

    def part_of_step(self, batch: Batch, loss: Tensor, rest: Tensor) -> Tensor | None:
        """Return a batch's part of the mean over its step's samples, for the mean over its own.

        Args:
            rest: the score of idle rows, which counts nothing and keeps this process in step with the others.

        None, with a warning for the first one, where the loss reaches nothing that is trained.
        """
        part = self.share_of(batch)
        whole = (loss * (part.row_factor() if part else 1.0) + 0.0 * rest).float()
        if whole.requires_grad:
            return whole
        self.free_gathered()
        if not self._warned:
            self._warned = True
            rank_zero_warn(
                f"stages.{self.stage.name}: a batch trains nothing of {', '.join(self.stage.train)}; batches like it "
                "are skipped. Has the stage the right data and head?"
            )
        return None

    def _prepare_reference(self) -> None:
        data = getattr(self.trainer, "datamodule", None)  # Lightning keeps it there without a type
        if self.reference is not None or not isinstance(data, KeepsReference):
            return
        processes = Processes(self.trainer.global_rank, self.trainer.world_size)
        fresh = self._digest is None
        if self._digest is None:
            precision = str(self.trainer.precision)
            self._digest = model_digest(self.vargpt, processes, {**self.depends_on(), "precision": precision})
        folder = data.cache / "reference" / self._digest
        self.reference = values = ReferenceValues(folder, processes.rank)
        if fresh:  # otherwise a checkpoint was loaded, which comes after
            with working(f"stage {self.stage.name}: log-probabilities under the reference"):
                self._compute(data, processes, values)

    @torch.no_grad()
    def _compute(self, data: KeepsReference, processes: Processes, reference: ReferenceValues) -> None:
        strategy, precision = self.trainer.strategy, self.trainer.precision_plugin
        for step, batch in self._batches(data):
            self.drawn_at = step
            placed = strategy.batch_to_device(precision.convert_input(batch))
            rows = self.rows(placed)
            keys = self.keys(rows)
            wanted = max(processes.gather(int(reference.missing(keys))))
            if not wanted:  # in no process: a forward pass is one of all
                continue
            with precision.train_step_context():
                scores_B = self.scores(self.found(self(rows)))
            reference.add(keys, scores_B[: len(keys)].cpu())
        self.free_gathered()
        reference.write()
        processes.wait()
        reference.read()

    def _batches(self, data: KeepsReference) -> Iterator[tuple[int, Batch]]:
        """All batches of the stage, with the steps that they are trained at."""
        for number, batch in enumerate(data.train_dataloader()):
            yield number // self.stage.accumulate, batch
        for batch in data.val_dataloader():
            yield -1, batch

    def _seeds(self, rows: Batch) -> list[int]:
        """A seed for each picture, those of idle rows left out."""
        seeds = [int.from_bytes(key[:7], "big") for key in self.draw_keys(self.keys(rows))]
        places = self.vargpt.of(rows).picture_length
        counts = ((rows["input_ids"] == self.vargpt.tokens.image_gen).sum(1) // places).tolist()
        return [seed + number for seed, count in zip(seeds, counts, strict=False) for number in range(count)]
