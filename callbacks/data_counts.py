"""How many records of a stage's stream could not be used as they are."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vargpt_lightning.runs.folder import StageFolder

NAMES = {"skipped": "records skipped (a picture that is none, nothing to train)", "cut": "cut to the context"}


ROWS = ("tokens", "positions")


class DataCounts(pl.Callback):
    """Count the records that were skipped, and those that were cut to the context, and say so at the end.

    Reads `skipped` and `cut` of each batch, as `collate` counts them, of rank 0. The sums go to stage.json. A record
    counts each time it is met. Beside them goes `padding`, the share of the rows' positions that hold no token.

    Args:
        folder: the stage's folder.
    """

    def __init__(self, folder: StageFolder) -> None:
        self.folder = folder
        self.counts = dict.fromkeys(NAMES, 0)
        self.rows = dict.fromkeys(ROWS, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name in NAMES:
            self.counts[name] += int(batch.get(name, 0))
        for name in ROWS:
            self.rows[name] += int(batch.get(name, 0))

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tokens, positions = self.rows["tokens"], self.rows["positions"]
        self.folder.update(**self.counts, padding=round(1 - tokens / positions, 4) if positions else 0.0)
        told = [f"{count} {NAMES[name]}" for name, count in self.counts.items() if count]
        if told:
            print(f"stage {self.folder.name}: {', '.join(told)}", flush=True)

    def state_dict(self) -> dict[str, int]:
        return self.counts | self.rows

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.counts = {name: state_dict.get(name, 0) for name in NAMES}
        self.rows = {name: state_dict.get(name, 0) for name in ROWS}
