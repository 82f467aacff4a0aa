"""Training on text and pictures together: questions answered, pictures drawn, in mixed batches.

Legend: B batch, Q drawn pictures, K scales.
"""

from __future__ import annotations

from torch import Tensor

from vargpt_lightning.models.vargpt import VARGPTOutput
from vargpt_lightning.modules.base import Batch, StageModule, share


class UnifiedModule(StageModule):
    """Text cross-entropy on answers plus image cross-entropy on visual tokens (VARGPT, section 3.3).

    The two are logged apart. With `decoder_alone` in the stage, drawn pictures pass through the visual decoder alone,
    without the language model, as in training a VAR.
    """

    text = True
    image = True

    def forward(self, batch: Batch) -> VARGPTOutput:
        alone = self.stage.decoder_alone and (batch.get("drawn_indices") is not None or "drawn_pixels" in batch)
        return self.vargpt(batch, decoder_only=alone)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._step(batch, "val")

    def _step(self, batch: Batch, split: str) -> Tensor | None:
        output = self(batch)
        samples = len(batch["input_ids"])
        losses = {
            "text_loss": output.text_loss if self.text else None,
            "image_loss": output.image_loss if self.image else None,
        }
        logged: dict[str, Tensor | float | None] = dict(losses)
        logged["text_accuracy"] = share(output.text_correct, output.text_tokens) if self.text else None
        logged["image_accuracy"] = share(output.image_correct, output.image_tokens) if self.image else None
        if self.image and output.image_loss_per_scale is not None:
            for k, value in enumerate(output.image_loss_per_scale):
                logged[f"image_loss_scale_{k + 1}"] = value
        self.log_losses(logged, split, samples)
        if split == "train":
            self.last_counts = {
                "text_tokens": int(output.text_tokens),
                "image_tokens": int(output.image_tokens),
                "samples": samples,
            }
        weights = {"text_loss": self.stage.text_weight, "image_loss": self.stage.image_weight}
        terms = [weights[name] * loss for name, loss in losses.items() if loss is not None]
        return sum(terms[1:], terms[0]) if terms else None
