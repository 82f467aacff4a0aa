"""Training of the image tokenizer: reconstruction, quantization, and optionally features of a frozen network.

Legend: B batch, H and W height and width, K scales.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.shared_random import RankInvariantRng, draw
from vargpt_lightning.models.tokenizer.codebook import initialize_codebook
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.vision.networks.efficientnet import EfficientNetTower
from vargpt_lightning.modules.base import Batch, StageModule
from vargpt_lightning.modules.code_usage import CodeUsage
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError

USAGE_EVERY = 100
LITE0_MEAN, LITE0_STD = 127 / 255, 128 / 255


@runtime_checkable
class Calibrates(Protocol):
    """A data module with pictures to lay a codebook over, (B, 3, H, W) in [-1, 1]."""

    def calibration_pictures(self) -> Tensor: ...


class TokenizerModule(StageModule):
    """L1 + squared error of the reconstruction, and the quantizer's terms: of a codebook, codebook and commitment loss
    (VAR, arXiv 2404.02905, equation 5); of bits, commitment and entropies (`models.tokenizer.entropy`).

    With `warmup_autoencoder` the first steps train an autoencoder without quantization; the codebook is then laid over
    the features of the data module's `calibration_pictures`, or of a batch. With `feature_weight` the mean squared
    distance between features of EfficientNet-Lite0 of a picture and of its reconstruction is added, in place of VAR's
    LPIPS, whose weights no package carries.

    The use of the codes is logged (`CodeUsage`).
    """

    def __init__(self, vargpt: VARGPT, stage: Stage, total_steps: int | None = None, **more: Any) -> None:
        if stage.feature_weight and vargpt.config.vision.kind != "efficientnet_lite0":
            raise UserError(
                f"stages.{stage.name}.feature_weight={stage.feature_weight}: features come from EfficientNet, but "
                f"model.vision.kind is {vargpt.config.vision.kind!r}; expected 0"
            )
        super().__init__(vargpt, stage, total_steps, **more)
        self.usage = CodeUsage(vargpt.image_tokenizer)

    def mean_names(self) -> list[str]:
        bits = ["sample_entropy", "batch_entropy"]
        return ["codebook_loss", "commitment_loss", *bits, "l1", "mse", "chroma_mse", "feature_loss"]

    @property
    def warmup_steps(self) -> int:
        """Steps without quantization."""
        return round(self.stage.warmup_autoencoder * self.total_steps)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        first_batch = batch_idx % self.trainer.accumulate_grad_batches == 0
        if self.warmup_steps and self.stage_step == self.warmup_steps and first_batch:
            data = getattr(self.trainer, "datamodule", None)  # Lightning keeps it there without a type
            pictures: Tensor = batch["drawn_pixels"]
            if isinstance(data, Calibrates):
                pictures = data.calibration_pictures().to(self.device)
            if isinstance(tokenizer := self.vargpt.image_tokenizer, ImageTokenizer):
                with self.as_first_process():
                    initialize_codebook(tokenizer, pictures)
                if self.trainer.world_size > 1:  # not only alike: the same
                    for tensor in tokenizer.quantize.state_dict().values():
                        dist.broadcast(tensor, src=0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        share = self.share_of(batch)
        x_B3HW = self._flip(batch["drawn_pixels"], self.draws(share))
        loss = self._step(batch, x_B3HW, "train", quantized=self.stage_step >= self.warmup_steps)
        return loss * share.image_factor() if share else loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._step(batch, batch["drawn_pixels"], "val", quantized=True)

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if self.stage_step > self.warmup_steps and (self.stage_step + 1) % USAGE_EVERY == 0:
            for name, percent in self.usage.values(self.vargpt.image_tokenizer).items():
                self.log(f"train/{name}", percent)

    def _flip(self, x_B3HW: Tensor, draws: RankInvariantRng | None = None) -> Tensor:
        flipped_B = draw(len(x_B3HW), x_B3HW.device, draws) < self.stage.flip
        return torch.where(flipped_B[:, None, None, None], x_B3HW.flip(-1), x_B3HW)

    def _step(self, batch: Batch, x_B3HW: Tensor, split: str, quantized: bool) -> Tensor:
        tokenizer = self.vargpt.of(batch).image_tokenizer
        x_B3HW = x_B3HW.contiguous(memory_format=torch.channels_last)
        logged: dict[str, Tensor | float | None] = {}
        if quantized:
            output = tokenizer(x_B3HW)
            rec_B3HW, vq_loss = output.reconstruction, output.vq_loss
            logged |= output.terms
        else:
            f_BCHW = tokenizer.features(x_B3HW)
            # Features of size one suit a codebook; without a pull they may grow without bound.
            vq_loss = 1e-3 * f_BCHW.square().mean()
            rec_B3HW = tokenizer.draw(f_BCHW)
        l1, squared = F.l1_loss(rec_B3HW, x_B3HW), F.mse_loss(rec_B3HW, x_B3HW)
        logged |= {"l1": l1, "mse": squared}
        loss = l1 + self.stage.squared_weight * squared + vq_loss
        if self.stage.chroma_weight:
            chroma = F.mse_loss(rec_B3HW.diff(dim=1), x_B3HW.diff(dim=1))
            logged["chroma_mse"] = chroma
            loss = loss + self.stage.chroma_weight * chroma
        if self.stage.feature_weight:
            features = self._feature_loss(rec_B3HW, x_B3HW)
            logged["feature_loss"] = features
            loss = loss + self.stage.feature_weight * features
        self.log_losses(logged, split, len(x_B3HW))
        if split == "train":
            tokens = len(x_B3HW) * tokenizer.schedule.num_tokens
            self.last_counts = {"text_tokens": 0, "image_tokens": tokens, "samples": len(x_B3HW)}
        return loss

    def _feature_loss(self, rec_B3HW: Tensor, x_B3HW: Tensor) -> Tensor:
        both = (torch.cat([rec_B3HW, x_B3HW]).add(1).div(2) - LITE0_MEAN) / LITE0_STD
        tower = self.vargpt.vision_tower
        assert isinstance(tower, EfficientNetTower)
        pairs = [maps.chunk(2) for maps in tower.pyramid(both)]
        return torch.stack([F.mse_loss(rec, real.detach()) for rec, real in pairs]).mean()
