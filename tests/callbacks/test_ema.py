from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from vargpt_lightning.callbacks.batch_rng import BatchRng
from vargpt_lightning.callbacks.ema import EMA, averaged_weights
from vargpt_lightning.distributed.tensors import whole


class Trace(pl.Callback):
    """Keeps the raw weights after each step and works out the average by hand."""

    def __init__(self, start: torch.Tensor, decay: float) -> None:
        self.average, self.decay, self.raw, self.updates = start.clone(), decay, start, 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.raw = pl_module.trained.weight.detach().clone()
        self.average = decay * self.average + (1 - decay) * self.raw
        self.updates += 1


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay}"):
        EMA(decay)


def test_averages_follow_the_formula_and_end_up_in_the_module(make_trainer, make_loader, tiny) -> None:
    module = tiny()
    trace = Trace(module.trained.weight.detach(), 0.5)
    ema = EMA(0.5)
    make_trainer([trace, ema]).fit(module, make_loader())
    torch.testing.assert_close(module.trained.weight.detach(), trace.average)
    assert not torch.allclose(trace.average, trace.raw)
    assert set(ema.averages) == {"trained.weight", "trained.bias"}, "frozen weights take no memory"


def test_without_warm_up_the_decay_counts_from_the_first_step() -> None:
    module, ema = nn.Linear(1, 1, bias=False), EMA(0.9, warmup=False)
    module.weight.data.fill_(0.0)
    ema.follow(module)
    module.weight.data.fill_(1.0)
    ema.update(module)
    assert ema.averages["weight"].item() == pytest.approx(0.1)


def test_validation_sees_the_averages_and_training_goes_on_with_the_raw_weights(
    make_trainer, make_loader, tiny
) -> None:
    module, plain = tiny(), tiny()
    trace = Trace(module.trained.weight.detach(), 0.9)
    ema = EMA(0.9)
    make_trainer([BatchRng(0), trace, ema], max_epochs=2).fit(module, make_loader(4), make_loader(1))
    make_trainer([BatchRng(0)], max_epochs=2).fit(plain, make_loader(4), make_loader(1))
    assert torch.equal(trace.raw, plain.trained.weight)
    torch.testing.assert_close(module.validated[-1], trace.average)


def test_an_average_moves_once_a_step_under_accumulation(make_trainer, make_loader, tiny) -> None:
    ema = EMA()
    make_trainer([ema], accumulate_grad_batches=3).fit(tiny(), make_loader(6))
    assert ema.updates == 2


def test_half_precision_weights_are_averaged_in_fp32() -> None:
    module = nn.Linear(1, 1, bias=False).bfloat16()
    module.weight.data.fill_(1.0)
    ema = EMA(0.999, warmup=False)
    ema.follow(module)
    module.weight.data.fill_(2.0)
    ema.update(module)
    assert ema.averages["weight"].item() == pytest.approx(1.001, abs=1e-6)


def test_averaged_weights_lends_them_and_takes_them_back(make_trainer, tiny) -> None:
    module, ema = tiny(), EMA()
    ema.follow(module)
    ema.averages["trained.weight"] += 1.0
    before = module.trained.weight.detach().clone()
    trainer = make_trainer([ema])
    with averaged_weights(trainer, module), averaged_weights(trainer, module):
        torch.testing.assert_close(module.trained.weight.detach(), before + 1.0)
    assert torch.equal(module.trained.weight, before)
    with pytest.raises(RuntimeError, match="inside"), averaged_weights(trainer, module):
        raise RuntimeError("inside")
    assert torch.equal(module.trained.weight, before)
    with averaged_weights(make_trainer([]), module):
        assert torch.equal(module.trained.weight, before)


def test_checkpoints_hold_raw_weights_also_during_validation(tmp_path: Path, make_trainer, make_loader, tiny) -> None:
    class SaveInValidation(pl.Callback):
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "inside.ckpt")

    module = tiny()
    trace = Trace(module.trained.weight.detach(), 0.9)
    make_trainer([trace, EMA(0.9), SaveInValidation()]).fit(module, make_loader(4), make_loader(1))
    saved = torch.load(tmp_path / "inside.ckpt", weights_only=False)["state_dict"]
    assert torch.equal(saved["trained.weight"], trace.raw)


def test_resuming_is_exact(tmp_path: Path, make_trainer, make_loader, tiny, stop_after) -> None:
    data = make_loader(same=True)
    whole = tiny()
    make_trainer([BatchRng(0), EMA(0.9)]).fit(whole, data)
    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=5, save_last=True)
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer([BatchRng(0), EMA(0.9), stop_after(7), keep], enable_checkpointing=True).fit(tiny(), data)
    resumed = tiny()
    make_trainer([BatchRng(0), EMA(0.9)]).fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert torch.equal(whole.trained.weight, resumed.trained.weight)


def test_a_fit_resumed_after_its_last_step_still_ends_with_the_averages(
    tmp_path: Path, make_trainer, make_loader, tiny
) -> None:
    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    whole, resumed = tiny(), tiny()
    make_trainer([EMA(0.9), keep], enable_checkpointing=True, max_steps=12).fit(whole, make_loader())
    make_trainer([EMA(0.9)], max_steps=12).fit(
        resumed, make_loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=False
    )
    assert torch.equal(whole.trained.weight, resumed.trained.weight)


def test_a_frozen_weight_keeps_its_average_and_a_new_one_starts_afresh() -> None:
    module = nn.ModuleDict({"first": nn.Linear(1, 1, bias=False), "second": nn.Linear(1, 1, bias=False)})
    ema = EMA(0.9)
    module["second"].requires_grad_(False)
    ema.follow(module)
    ema.averages["first.weight"].fill_(5.0)
    module["first"].requires_grad_(False)
    module["second"].requires_grad_(True)
    ema.follow(module)
    assert module["first"].weight.item() == 5.0
    assert set(ema.averages) == {"second.weight"}
    assert torch.equal(ema.averages["second.weight"], module["second"].weight)


def test_sharded_weights_are_averaged_as_whole_ones() -> None:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        plain, sharded = (nn.Linear(3, 2), nn.Linear(3, 2))
        sharded.load_state_dict(plain.state_dict())
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        averages = [EMA(0.5), EMA(0.5)]
        for step in (1.0, 2.0):
            for ema, module in zip(averages, (plain, sharded), strict=True):
                ema.follow(module)
                with torch.no_grad():
                    module.weight.mul_(step + 1)
                ema.update(module)
        for ema, module in zip(averages, (plain, sharded), strict=True):
            ema.swap_in(module)
        assert torch.equal(whole(sharded.weight), plain.weight)
        assert not torch.equal(plain.weight, averages[0]._raw["weight"])
    finally:
        dist.destroy_process_group()
