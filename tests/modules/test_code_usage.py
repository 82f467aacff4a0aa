"""What a tokenizer's stage logs of its codes, of indices and of bits, and the stage in bits as a whole."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.tiny import tiny_config, tiny_stage
from tests.tiny_training import fit_stage
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.modules import tokenizer as subject
from vargpt_lightning.modules.code_usage import CodeUsage
from vargpt_lightning.training.data.stage_data import StageData


def bit_model(**changes: Any) -> VARGPT:
    config = tiny_config()
    values = {"kind": "bits", "code_size": 16, "dropout": 0.0} | changes
    config.tokenizer = type(config.tokenizer)(**vars(config.tokenizer) | values)
    torch.manual_seed(0)
    return VARGPT(config)


def tokenizer_of(model: VARGPT) -> BitTokenizer:
    assert isinstance(model.image_tokenizer, BitTokenizer)
    return model.image_tokenizer


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_tokenizer_in_bits_is_trained(stage_data: StageData, warmup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "USAGE_EVERY", 10)
    fitted = fit_stage(stage_data, bit_model(), tiny_stage("tokenizer", steps=30, warmup_autoencoder=warmup), 30)
    l1 = fitted.values("train/l1")
    assert min(list(l1.values())[-5:]) < 0.8 * l1[1]
    for name in ("commitment_loss", "sample_entropy", "batch_entropy"):
        assert fitted.values(f"train/{name}")
    assert not fitted.values("train/codebook_loss")
    use = {name: value for _, row in fitted.rows for name, value in row.items() if "bit_usage" in name}
    assert set(use) == {f"train/bit_usage_scale_{k}" for k in (1, 2)} | {f"train/bit_usage_bit_{i}" for i in range(16)}
    assert all(0 <= value <= 100 for value in use.values()) and use["train/bit_usage_scale_2"] > 30


def test_bits_that_are_always_the_same_are_warned_of_once() -> None:
    tokenizer = tokenizer_of(bit_model())
    usage = CodeUsage(tokenizer)
    mixed = torch.randint(0, 2, (500, 4, 16), generator=torch.Generator().manual_seed(0))
    constant = torch.cat([torch.ones(500, 1, 13, dtype=torch.long), mixed[:, :1, 13:]], dim=2)
    with pytest.warns(UserWarning, match=r"scale 1 \(1x1\) has the same value in 13 of its 16 bits nearly") as caught:
        for _ in range(2):
            tokenizer.usage.record([constant, mixed])
            values = usage.values(tokenizer)
    assert len(caught) == 1
    assert values["bit_usage_scale_1"] == pytest.approx(100 * 3 / 16, abs=1) and values["bit_usage_scale_2"] > 99
    assert values["bit_usage_bit_0"] == pytest.approx(50, abs=1) and values["bit_usage_bit_15"] > 99
    assert not tokenizer.usage.seen_S.any(), "counts begin anew"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.usage.record([mixed, mixed])
        usage.values(tokenizer)


def test_counts_of_bits_go_on_after_a_resume(stage_data: StageData, tmp_path: Path) -> None:
    stage = tiny_stage("tokenizer", warmup_autoencoder=0.0, steps=12, batch_size=2)
    unbroken, resumed = bit_model(), bit_model()
    checkpoint = LastCheckpoint(tmp_path / "last.ckpt", seconds=0)
    fit_stage(stage_data, unbroken, stage, 12)

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 7:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit_stage(stage_data, bit_model(), stage, 12, [checkpoint, Stop()])
    fit_stage(stage_data, resumed, stage, 12, checkpoint=checkpoint.path)
    assert tokenizer_of(resumed).counts() == tokenizer_of(unbroken).counts()
    assert tokenizer_of(resumed).counts()[0] == [24, 96]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, unbroken.state_dict()[name]), name
