"""Training of the image tokenizer: an autoencoder first, then a codebook laid over its features, then both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.nn import functional as F

from tests.tiny import tiny_config, tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.tokenizer.quantizer import MultiScaleQuantizer
from vargpt_lightning.modules import tokenizer as subject
from vargpt_lightning.modules.tokenizer import TokenizerModule
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError


class Calls(pl.Callback):
    """Notes per step whether pictures were quantized, and the codes before the batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.quantized: list[bool] = []
        self.codes: list[torch.Tensor] = []
        forward = ImageTokenizer.forward

        def noted(tokenizer: ImageTokenizer, x_B3HW: torch.Tensor) -> Any:
            self.quantized[-1] = True
            return forward(tokenizer, x_B3HW)

        monkeypatch.setattr(ImageTokenizer, "forward", noted)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        self.quantized.append(False)
        self.codes.append(pl_module.vargpt.image_tokenizer.quantize.embedding.weight.detach().clone())


def test_the_warm_up_quantizes_nothing_and_then_the_codebook_is_made(
    stage_data: StageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    model = tiny_model()
    asked: list[tuple[int, ...]] = []
    make = subject.initialize_codebook

    def noted(tokenizer: ImageTokenizer, x_B3HW: torch.Tensor) -> list[float]:
        asked.append(tuple(x_B3HW.shape))
        return make(tokenizer, x_B3HW)

    monkeypatch.setattr(subject, "initialize_codebook", noted)
    fitted = fit_stage(stage_data, model, tiny_stage("tokenizer"), callbacks=[calls])
    assert calls.quantized == [False] * 3 + [True] * 3
    assert asked == [(9, 3, 8, 8)], "once, over all training pictures"
    assert torch.equal(calls.codes[0], calls.codes[3]), "the codes are not trained before"
    assert (calls.codes[4] - calls.codes[3]).abs().max() > 0.05, "and laid over the features then"
    assert sorted(fitted.values("train/codebook_loss")) == [4, 5, 6]
    assert sorted(fitted.values("train/l1")) == [1, 2, 3, 4, 5, 6]


def test_accumulated_batches_make_the_codebook_once(stage_data: StageData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(subject, "initialize_codebook", lambda tokenizer, x_B3HW: asked.append(len(x_B3HW)))
    fit_stage(stage_data, tiny_model(), tiny_stage("tokenizer", accumulate=2))
    assert asked == [9]


def module_of(data: StageData, model: VARGPT, **changes: Any) -> tuple[TokenizerModule, torch.Tensor]:
    """A module that logs nowhere, and a batch for it."""
    stage = tiny_stage("tokenizer", warmup_autoencoder=0.0, **changes)
    data.prepare(model, stage)
    module = VARGPTModule(model.eval(), stage, 6)
    assert isinstance(module, TokenizerModule)
    module.log_losses = lambda *args: None  # type: ignore[method-assign]
    return module, data.scaled(next(iter(data.train_loader(stage, 1, 0))))["drawn_pixels"]


def test_the_loss_is_the_sum_of_its_terms(stage_data: StageData) -> None:
    module, x_B3HW = module_of(stage_data, tiny_model(), squared_weight=2.0, chroma_weight=3.0)
    output = module.vargpt.image_tokenizer(x_B3HW)
    rec_B3HW = output.reconstruction
    red, green, blue = (rec_B3HW - x_B3HW).unbind(1)
    chroma = torch.stack([red - green, green - blue]).square().mean()
    wanted = F.l1_loss(rec_B3HW, x_B3HW) + 2 * F.mse_loss(rec_B3HW, x_B3HW) + output.vq_loss + 3 * chroma
    torch.testing.assert_close(module._step({}, x_B3HW, "train", quantized=True), wanted)


def test_pictures_are_mirrored_as_often_as_asked(stage_data: StageData) -> None:
    x_B3HW = torch.arange(400 * 3 * 2 * 2.0).view(400, 3, 2, 2)
    for share in (0.0, 0.3, 1.0):
        module, _ = module_of(stage_data, tiny_model(), flip=share)
        flipped_B = (module._flip(x_B3HW) == x_B3HW.flip(-1)).flatten(1).all(1)
        kept_B = (module._flip(x_B3HW) == x_B3HW).flatten(1).all(1)
        assert flipped_B.float().mean() == pytest.approx(share, abs=0.08)
        assert kept_B.float().mean() == pytest.approx(1 - share, abs=0.08)


def test_usage_is_logged_and_a_collapse_is_warned_of_once(
    stage_data: StageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "USAGE_EVERY", 2)
    used_SV = torch.arange(200) < torch.tensor([[100], [1]])
    monkeypatch.setattr(MultiScaleQuantizer, "codes_in_use", lambda quantizer: used_SV)
    with pytest.warns(UserWarning, match=r"scale 2 \(2x2\) uses 0.5 % of the codes") as caught:
        fitted = fit_stage(stage_data, tiny_model(), tiny_stage("tokenizer", warmup_autoencoder=0.0), 8)
    assert sum("of the codes" in str(each.message) for each in caught) == 1
    assert set(fitted.values("train/codebook_usage_scale_1").values()) == {50.0}
    assert set(fitted.values("train/codebook_usage_scale_2").values()) == {0.5}


def test_a_healthy_codebook_is_not_warned_of(stage_data: StageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "USAGE_EVERY", 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of the codes")
        fit_stage(stage_data, tiny_model(), tiny_stage("tokenizer"), 8)


def test_a_model_without_the_packages_tower_has_no_feature_loss(stage_data: StageData) -> None:
    with pytest.raises(UserError, match=r"stages.tokenizer.feature_weight=1.0: .*model.vision.kind is 'clip'"):
        module_of(stage_data, tiny_model(), feature_weight=1.0)


def test_features_are_compared_by_the_tower_of_the_package() -> None:
    config = tiny_config()
    config.vision = type(config.vision)(kind="efficientnet_lite0", picture_size=32)
    config.tokenizer.scales = (1, 8)
    torch.manual_seed(0)
    module = TokenizerModule(VARGPT(config), tiny_stage("tokenizer", feature_weight=1.0), 6)
    x_B3HW = torch.rand(2, 3, 32, 32) * 2 - 1
    assert module._feature_loss(x_B3HW, x_B3HW) == 0
    rec_B3HW = (x_B3HW * 0.9).requires_grad_()
    loss = module._feature_loss(rec_B3HW, x_B3HW)
    loss.backward()
    assert loss > 0 and rec_B3HW.grad is not None and rec_B3HW.grad.abs().sum() > 0


def test_the_record_of_the_codes_hits_goes_on_after_a_resume(stage_data: StageData, tmp_path: Path) -> None:
    """How much a batch changes it depends on a count that is no buffer: 2 a step, and from 100 on a tenth as much."""
    stage = tiny_stage("tokenizer", warmup_autoencoder=0.0, steps=60, batch_size=2)
    unbroken, resumed = tiny_model(), tiny_model()
    checkpoint = LastCheckpoint(tmp_path / "last.ckpt", seconds=0)
    fit_stage(stage_data, unbroken, stage, 60)

    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 56:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit_stage(stage_data, tiny_model(), stage, 60, [checkpoint, Stop()])
    fit_stage(stage_data, resumed, stage, 60, checkpoint=checkpoint.path)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, unbroken.state_dict()[name]), name
    quantizers = [model.image_tokenizer.quantize for model in (unbroken, resumed)]
    assert quantizers[0].hit_updates == quantizers[1].hit_updates == 120


def test_counts_are_those_of_pictures(stage_data: StageData) -> None:
    fitted = fit_stage(stage_data, tiny_model(), tiny_stage("tokenizer"), 1)
    assert fitted.module.last_counts == {"text_tokens": 0, "image_tokens": 4 * 5, "samples": 4}
