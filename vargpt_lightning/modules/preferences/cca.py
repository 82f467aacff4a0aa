"""Condition contrastive alignment: a picture becomes likelier beside its prompt than beside another's.

Legend: N rows of a batch before those with other pictures are added, B all rows, T tokens, P seen pictures.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.losses import LogProbabilities
from vargpt_lightning.modules.base import Batch
from vargpt_lightning.modules.preferences.base import PreferenceModule
from vargpt_lightning.modules.preferences.contents import Content, row_keys
from vargpt_lightning.modules.preferences.losses import cca_losses
from vargpt_lightning.modules.step_counts import DRAWN_KEYS, SEEN_KEYS
from vargpt_lightning.recipe.preferences import CcaSettings
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError

_DIGITS = 7  # bytes of a hash that a whole number holds


class CcaModule(PreferenceModule):
    """CCA (`cca_losses`): no other data than those of a stage that learns to draw, and no judge.

    Behind its rows a batch has each of them once more with the picture of the row before, whichever process has that.
    A share of the rows has its prompt hidden, in both; such rows count as right in both, as do those whose other
    picture or text is the same. Pictures' log-probabilities are summed over their numbers; text counts nothing.
    """

    def __init__(self, vargpt: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> None:
        super().__init__(vargpt, stage, total_steps, **more)
        self.settings = stage.cca or CcaSettings()

    def mean_names(self) -> list[str]:
        return ["preference_loss", "pair_accuracy", "reward_margin", "reward_right", "reward_mismatched"]

    def scores(self, found: LogProbabilities) -> Tensor:
        return found.of_drawings()

    def rows(self, batch: Batch) -> dict[str, Any]:
        """Return the batch's rows, the same with the pictures of the rows before, and idle ones.

        `hidden` (B,) are pictures whose prompt is hidden, `right` (N,) rows that are right with the other picture too.

        Raises:
            UserError: a row draws no picture, or several.
        """
        own = super().own_rows(batch)
        key = next((each for each in DRAWN_KEYS if batch.get(each) is not None), DRAWN_KEYS[0])
        drawn = 0 if batch.get(key) is None else len(batch[key])
        if drawn != own:
            raise UserError(
                f"stages.{self.stage.name}: a batch of {own} records draws {drawn} pictures; expected one in each "
                f"record with head={self.stage.head}"
            )
        ids_BT = batch["input_ids"]
        seen = int((ids_BT[:own] == self.vargpt.tokens.image).sum()) // self.vargpt.config.vision.patches
        rows: dict[str, Any] = {}
        for name, value in batch.items():
            count = seen if name in SEEN_KEYS else own
            if not isinstance(value, Tensor) or name in DRAWN_KEYS:
                continue
            rows[name] = torch.cat((value[:count], value[:count], value[count:]))
        if key == "drawn_pixels" and self.stage.self_correction is None:
            key = "drawn_indices"
        tokenizer = self.vargpt.of(batch).image_tokenizer
        pictures: Tensor = batch[key] if key in batch else tokenizer.encode(batch["drawn_pixels"])
        several = self.of_several(batch)
        others = _rolled(pictures, several)
        texts_N = torch.tensor(_texts(batch)[:own], device=ids_BT.device)
        same_N = texts_N == _rolled(texts_N, several)
        if not pictures.is_meta:  # as it is where a step is planned
            same_N |= torch.eq(pictures, others).flatten(1).all(1)
        kept = {name: value for name, value in batch.items() if name not in DRAWN_KEYS}
        hidden_N = self._hidden({**kept, key: pictures}, own)
        rows |= {key: torch.cat((pictures, others)), "hidden": torch.cat((hidden_N, hidden_N))}
        return {**kept, **rows, "right": same_N | hidden_N}

    def own_rows(self, rows: Batch) -> int:
        return 2 * super().own_rows(rows)

    def hidden(self, rows: Batch) -> Tensor:
        hidden_B: Tensor = rows["hidden"]
        return hidden_B

    def keys(self, rows: Batch) -> list[bytes]:
        count = self.own_rows(rows)
        idle = rows["hidden"].new_zeros(len(rows["input_ids"]) - count)
        return row_keys(rows, self.vargpt, torch.cat((rows["hidden"], idle))[:, None])[:count]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self.part_of_step(batch, *self._losses(batch, "train"))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._losses(batch, "val")

    def _losses(self, batch: Batch, split: str) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch's rows, which is logged, and the score of idle rows."""
        rows, settings = self.rows(batch), self.settings
        output, now_B, then_B = self.compared(rows)
        count = self.own_rows(rows)
        own_N, other_N = (now_B - then_B)[:count].view(2, -1)
        loss = cca_losses(own_N, other_N, rows["right"], settings.beta, settings.negative_weight).mean()
        wrong_N = ~rows["right"]
        margins_N = settings.beta * (own_N - other_N).detach()[wrong_N]
        compared = {
            "pair_accuracy": (margins_N > 0).double().mean(),
            "reward_margin": margins_N.mean(),
            "reward_mismatched": settings.beta * other_N[wrong_N].mean(),
        }
        right = {"preference_loss": loss, "reward_right": settings.beta * own_N.mean()}
        self.log_losses(right, split, count // 2)
        self.log_losses(dict(compared), split, int(wrong_N.sum()))
        if split == "train":
            self.count(batch, output, count // 2)
        return loss, now_B[count:].sum()

    def _hidden(self, batch: Batch, own: int) -> Tensor:
        """Draw the rows whose prompt is hidden from the row, the step and nothing else, (N,)."""
        keys = row_keys(batch, self.vargpt)[:own]
        draws = [_number(key + self.drawn_at.to_bytes(8, "big", signed=True)) / 256**_DIGITS for key in keys]
        return torch.tensor(draws, device=batch["input_ids"].device) < self.settings.hidden


def _rolled(rows_N: Tensor, several: bool) -> Tensor:
    """Each row's predecessor; the first one's is the last row of the process before."""
    last = rows_N[-1:].contiguous()
    if several:
        every = [torch.empty_like(last) for _ in range(dist.get_world_size())]
        dist.all_gather(every, last)
        last = every[dist.get_rank() - 1]
    return torch.cat((last, rows_N[:-1]))


def _texts(batch: Batch) -> list[int]:
    """A number for what each row says."""
    ids_BT, valid_BT = (Content.of(batch[name]) for name in ("input_ids", "attention_mask"))
    rows = zip(ids_BT.values, valid_BT.values, strict=True)
    return [_number(ids_T[valid_T != 0].tobytes()) for ids_T, valid_T in rows]


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:_DIGITS], "big")
