"""What a stage forgets while it learns from preferences: looked at on records that stay the same.

Legend: B rows, T tokens, M trained text positions, Q drawn pictures, L visual tokens, V values of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from safetensors.torch import load, save
from torch import Tensor

from vargpt_lightning.models.core.losses import VARGPTOutput
from vargpt_lightning.modules.base import Batch, StageModule
from vargpt_lightning.recipe.preferences import WatchSettings
from vargpt_lightning.runs.folder import StageFolder
from vargpt_lightning.utils.files import write_bytes

FILE = "watched.safetensors"


@dataclass
class Look:
    """What is found on the records: the loss of a text token, the share of questions answered right (nan without any),
    and for each batch the distributions that the answers' tokens were expected by, as log-probabilities.
    """

    text_loss: float
    question_accuracy: float
    expected: list[list[Tensor]]

    def kl(self, reference: Look) -> float:
        """Return the mean Kullback-Leibler divergence from the reference over all tokens' numbers, in nats."""
        total, count = 0.0, 0
        for own, other in zip(self.expected, reference.expected, strict=True):
            for now, then in zip(own, other, strict=True):
                total += float((then.exp() * (then - now)).sum(-1, dtype=torch.float64).sum())
                count += now.numel() // now.shape[-1]
        return total / max(count, 1)


class Forgetting(pl.Callback):
    """Log `watch/text_loss`, `watch/question_accuracy` and `watch/kl`, and end a stage that forgets too much.

    The first look is taken before the first step, when the model is the reference; it is kept in the stage's folder,
    for a fit that resumes. A question, a row that draws nothing, is answered right where the likeliest token is the
    right one all along the answer.

    Args:
        settings: when to look, and what is too much.
        batches: makes the batches of the records.
        folder: the stage's.
    """

    def __init__(self, settings: WatchSettings, batches: Callable[[], Sequence[Batch]], folder: StageFolder) -> None:
        self.settings, self.batches, self.folder = settings, batches, folder
        self._batches: list[Batch] | None = None
        self._first: Look | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        file = self.folder.path / FILE
        if file.is_file() and trainer.global_step:
            self._first = _read(file.read_bytes())
            return
        self._first = self._look(trainer, pl_module)
        self._log(trainer, self._first)
        if trainer.is_global_zero:
            write_bytes(file, _written(self._first))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, last = trainer.global_step, trainer.max_steps
        if (batch_idx + 1) % trainer.accumulate_grad_batches or (step % self.settings.every and step != last):
            return
        assert self._first is not None
        look = self._look(trainer, pl_module)
        self._log(trainer, look)
        lost = self._lost(look, self._first)
        if trainer.strategy.reduce_boolean_decision(bool(lost), all=False):
            loop = trainer.fit_loop
            loop.min_epochs, loop.epoch_loop.min_steps = 0, 0  # else the stop waits for them
            trainer.should_stop = True
            rank_zero_info(f"stage {self.folder.name}: ended after step {step}: {lost}")
            if trainer.is_global_zero:
                self.folder.update(ended_early=lost)

    def _lost(self, look: Look, first: Look) -> str:
        """What is worse by more than it may be, in words."""
        most, found = self.settings, []
        if most.text_loss is not None and look.text_loss > first.text_loss + most.text_loss:
            limit = f"more than watch.text_loss={most.text_loss}"
            found.append(f"the text loss rose from {first.text_loss:.4f} to {look.text_loss:.4f}, {limit}")
        fallen = first.question_accuracy - look.question_accuracy
        if most.question_accuracy is not None and fallen > most.question_accuracy:
            limit = f"more than watch.question_accuracy={most.question_accuracy}"
            share = f"from {first.question_accuracy:.1%} to {look.question_accuracy:.1%}"
            found.append(f"the questions answered right fell {share}, {limit}")
        return "; ".join(found)

    def _log(self, trainer: pl.Trainer, look: Look) -> None:
        assert self._first is not None
        kl = look.kl(self._first)
        named = {"text_loss": look.text_loss, "question_accuracy": look.question_accuracy, "kl": kl}
        row = {f"watch/{name}": value for name, value in named.items() if value == value}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step - 1)  # Lightning counts steps from 0

    @torch.no_grad()
    def _look(self, trainer: pl.Trainer, module: pl.LightningModule) -> Look:
        assert isinstance(module, StageModule)
        if self._batches is None:
            self._batches = [trainer.strategy.batch_to_device(dict(batch)) for batch in self.batches()]
        module.vargpt.eval()
        expected: list[list[Tensor]] = []
        loss, tokens, right, asked = 0.0, 0, 0, 0
        for batch in self._batches:
            with trainer.precision_plugin.val_step_context():
                output = module.vargpt(batch, log_probabilities=True, return_text_logits=True)
            found = output.log_probabilities
            loss -= float(found.text_BT.double().sum())
            tokens += int(found.trained_BT.sum())
            right_B, asked_B = _answered(batch, output)
            right, asked = right + int(right_B.sum()), asked + int(asked_B.sum())
            expected.append([each.cpu() for each in _expected(output)])
        module.free_gathered()
        return Look(loss / max(tokens, 1), right / asked if asked else float("nan"), expected)


def _answered(batch: Batch, output: VARGPTOutput) -> tuple[Tensor, Tensor]:
    """Which rows are questions that are answered right, and which are questions: (B,)."""
    found, logits_BTV = output.log_probabilities, output.text_logits
    assert found is not None and logits_BTV is not None
    trained_BT, likeliest_BT = found.trained_BT[:, 1:], logits_BTV[:, :-1].argmax(-1)
    asked_B = trained_BT.any(1)
    if found.rows_Q is not None:
        asked_B[found.rows_Q] = False
    return asked_B & ((likeliest_BT == batch["input_ids"][:, 1:]) | ~trained_BT).all(1), asked_B


def _expected(output: VARGPTOutput) -> Iterator[Tensor]:
    """The distributions of trained text tokens (M, V), and of visual tokens' numbers (Q, L, V) or (Q, L, D, 2)."""
    found, logits_BTV = output.log_probabilities, output.text_logits
    assert found is not None and logits_BTV is not None
    yield logits_BTV[:, :-1][found.trained_BT[:, 1:]].float().log_softmax(-1)
    if output.image_logits is not None:
        logits_QLV = output.image_logits.float()
        yield (logits_QLV.unflatten(-1, (-1, 2)) if found.numbers > 1 else logits_QLV).log_softmax(-1)


def _written(look: Look) -> bytes:
    tensors = {f"{number}.{kind}": each for number, part in enumerate(look.expected) for kind, each in enumerate(part)}
    values = torch.tensor([look.text_loss, look.question_accuracy, len(look.expected)], dtype=torch.float64)
    return save({**{name: each.contiguous() for name, each in tensors.items()}, "values": values})


def _read(content: bytes) -> Look:
    tensors = load(content)
    text_loss, accuracy, batches = tensors.pop("values").tolist()
    names = [sorted(name for name in tensors if name.startswith(f"{number}.")) for number in range(int(batches))]
    return Look(text_loss, accuracy, [[tensors[name] for name in part] for part in names])
