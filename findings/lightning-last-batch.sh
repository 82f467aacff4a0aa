#!/usr/bin/env bash
# lightning 2.6.6: resumed from a checkpoint of an epoch's last batch, the next epoch has no start and odd batch numbers.
#
# A callback may save after each batch. Where the data are an iterable without a length, a fit that resumes from the
# checkpoint of an epoch's last batch calls `on_train_epoch_start` for the next epoch neither of callbacks nor of the
# module, and numbers its batches 4, 5, 6, 7 in place of 0, 1, 2, 3. What is set up at the start of an epoch, or counts on
# the batch's number (accumulation, seeds), is wrong for that epoch and right again in the one after. From a checkpoint of
# the epoch's end, saved a moment later, all is as it should be.
#
# Output seen (epoch:batch):
#   unbroken                     start 0:0 0:1 0:2 0:3 end start 1:0 1:1 1:2 1:3 end start 2:0 2:1 2:2 2:3 end
#   resumed from the last batch  1:4 1:5 1:6 1:7 end start 2:0 2:1 2:2 2:3 end
#   resumed from the epoch's end start 1:0 1:1 1:2 1:3 end start 2:0 2:1 2:2 2:3 end
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import logging
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")
import lightning.pytorch as pl

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Stream(torch.utils.data.IterableDataset):
    """Four numbers, and no length."""

    def __iter__(self):
        return iter(torch.arange(4.0))


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append(f"{self.current_epoch}:{index}")
        return (self.weight * batch).sum()

    def on_train_epoch_start(self):
        self.seen.append("start")

    def on_train_epoch_end(self):
        self.seen.append("end")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(Stream(), batch_size=None)


class Save(pl.Callback):
    """Saves after the first epoch's last batch, and again at its end."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4:
            trainer.save_checkpoint(FOLDER / "batch.ckpt")

    def on_train_epoch_end(self, trainer, *_):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(FOLDER / "end.ckpt")


def fit(callbacks=(), checkpoint=None):
    model = Model()
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=list(callbacks), **QUIET)
    trainer.fit(model, ckpt_path=checkpoint, weights_only=True)
    return " ".join(model.seen)


FOLDER = Path(sys.argv[1])
whole = fit([Save()])
batch, end = fit(checkpoint=FOLDER / "batch.ckpt"), fit(checkpoint=FOLDER / "end.ckpt")
for name, seen in (("unbroken", whole), ("resumed from the last batch", batch), ("resumed from the epoch's end", end)):
    print(f"{name:28} {seen}")
right = whole.endswith(f"end {end}") and end.startswith("start 1:0") and batch.startswith("1:4 1:5 1:6 1:7 end")
sys.exit(0 if right else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
