from __future__ import annotations

import random
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from vargpt_lightning.callbacks.batch_rng import BatchRng, seed_everything_at


def test_a_place_always_gives_the_same_numbers() -> None:
    draws = []
    for _ in range(2):
        seed_everything_at(3, "pretrain", 17)
        draws.append((torch.rand(2).tolist(), random.random(), np.random.rand()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize("place", [(4, "pretrain", 17), (3, "generation", 17), (3, "pretrain", 18)])
def test_another_place_gives_other_numbers(place: tuple[int, str, int]) -> None:
    seed_everything_at(3, "pretrain", 17)
    before = torch.rand(4), random.random(), np.random.rand()
    seed_everything_at(*place)
    after = torch.rand(4), random.random(), np.random.rand()
    assert not torch.equal(before[0], after[0]) and before[1] != after[1] and before[2] != after[2]


class Noise(pl.Callback):
    """Draws random numbers between batches, as a sample grid does."""

    def on_train_batch_end(self, *args: object) -> None:
        torch.rand(5)


def test_an_epoch_that_counts_its_batches_anew_changes_nothing(make_trainer, make_loader, tiny) -> None:
    draws: list[list[float]] = []

    class Draw(pl.Callback):
        def on_train_batch_start(self, *args: object) -> None:
            draws[-1].append(torch.rand(1).item())

    for batches, epochs in ((6, 1), (3, 2)):
        draws.append([])
        make_trainer([BatchRng(5), Draw()], max_epochs=epochs).fit(tiny(), make_loader(batches))
    assert draws[0] == draws[1]


@pytest.mark.parametrize("seeded", [True, False])
def test_a_resumed_run_equals_an_unbroken_one(
    seeded: bool, tmp_path: Path, make_trainer, make_loader, tiny, stop_after
) -> None:
    """Dropout alone is random here; without the callback the runs differ, which shows that the test can fail."""
    rng = [BatchRng(5, "a")] if seeded else []
    data = make_loader(same=True)
    whole = tiny()
    make_trainer([*rng], max_epochs=2).fit(whole, data)

    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_last=True)
    broken = make_trainer([*rng, Noise(), stop_after(17), keep], max_epochs=2, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="killed"):
        broken.fit(tiny(), data)
    resumed = tiny()
    make_trainer([*rng], max_epochs=2).fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert resumed.trainer.global_step == whole.trainer.global_step == 24
    assert torch.equal(whole.trained.weight, resumed.trained.weight) is seeded


def test_the_batches_of_one_accumulated_step_differ(make_trainer, make_loader, tiny) -> None:
    draws = []

    class Draw(pl.Callback):
        def on_train_batch_start(self, *args: object) -> None:
            draws.append(torch.rand(1).item())

    make_trainer([BatchRng(5), Draw()], accumulate_grad_batches=3).fit(tiny(), make_loader(6))
    assert len(set(draws)) == 6
