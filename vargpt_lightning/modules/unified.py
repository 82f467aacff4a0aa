"""Training on text and pictures together: questions answered, pictures drawn, in mixed batches.

Legend: B batch, Q drawn pictures, L visual tokens, K scales, V codebook.
"""

from __future__ import annotations

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from vargpt_lightning.models.core.losses import VARGPTOutput
from vargpt_lightning.modules.base import Batch, StageModule, samples_of, share
from vargpt_lightning.modules.step_counts import Share


class UnifiedModule(StageModule):
    """Text cross-entropy on answers plus image cross-entropy on visual tokens (VARGPT, section 3.3).

    The two are logged apart. With `decoder_alone` in the stage, drawn pictures pass through the visual decoder alone,
    without the language model, as in training a VAR. A batch whose losses reach nothing that is trained (questions, in
    a stage that trains the decoder) is skipped, with a warning for the first one.
    """

    text = True
    image = True

    _warned = False

    def mean_names(self) -> list[str]:
        names = ["text_loss", "text_accuracy"] if self.text else []
        if self.image:
            names += ["image_loss", "image_accuracy"]
            names += [f"image_loss_scale_{k + 1}" for k in range(self.vargpt.schedule.num_scales)]
        return names

    def forward(self, batch: Batch) -> VARGPTOutput:
        alone = self.stage.decoder_alone and (batch.get("drawn_indices") is not None or "drawn_pixels" in batch)
        draws = self.draws(self.share_of(batch)) if self.training else None
        return self.vargpt(batch, decoder_only=alone, generator=draws, correction=self.stage.self_correction)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        part = self.share_of(batch)
        output = self._run(batch, "train")
        counted = self._tokens(output, part)
        self.last_counts = {
            "text_tokens": counted["text"],
            "image_tokens": counted["image"],
            "samples": part.own.rows if part else samples_of(batch),
            "tokens": batch.get("tokens", 0),
            "positions": batch.get("positions", 0),
        }
        loss = self._loss(output, part)
        if loss is None:
            self.free_gathered()
        if loss is None and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"stages.{self.stage.name}: a batch trains nothing of {', '.join(self.stage.train)}; batches like it "
                "are skipped. Has the stage the right data and head?"
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._run(batch, "val")

    def _run(self, batch: Batch, split: str) -> VARGPTOutput:
        """Pass the batch through the model and log what comes out."""
        output = self(batch)
        logged: dict[str, Tensor | float | None] = {}
        if self.text:
            logged["text_loss"] = output.text_loss
            logged["text_accuracy"] = share(output.text_correct, output.text_tokens)
        if self.image:
            logged["image_loss"] = output.image_loss
            logged["image_accuracy"] = share(output.image_correct, output.image_tokens)
            if output.image_loss_per_scale is not None:
                for k, value in enumerate(output.image_loss_per_scale):
                    logged[f"image_loss_scale_{k + 1}"] = value
        part = self.share_of(batch)
        samples = part.own.rows if part else samples_of(batch)
        self.log_losses(logged, split, samples, self._tokens(output, part))
        return output

    def _tokens(self, output: VARGPTOutput, part: Share | None) -> dict[str, int]:
        """The trained tokens of a batch; those of an idle row are none."""
        text, image = int(output.text_tokens), int(output.image_tokens)
        if part is not None and not part.own.text:
            text = 0
        if part is not None and not part.own.drawn:
            image = 0
        return {"text": text, "image": image}

    def _loss(self, output: VARGPTOutput, part: Share | None = None) -> Tensor | None:
        """Return the weighted sum of the losses that reach a trained parameter: this batch's part of the step's."""
        text, image = (part.text_factor(), part.image_factor()) if part else (1.0, 1.0)
        weighted = [
            (self.stage.text_weight, text, output.text_loss if self.text else None),
            (self.stage.image_weight, image, self._image_loss(output) if self.image else None),
        ]
        # a factor of 0 is an idle row's: its loss keeps this process in step with the others
        terms = [
            weight * factor * loss
            for weight, factor, loss in weighted
            if weight and loss is not None and loss.requires_grad
        ]
        return sum(terms[1:], terms[0]) if terms else None

    def _image_loss(self, output: VARGPTOutput) -> Tensor | None:
        """Return the image loss that is trained; the one that is logged is the plain mean over tokens."""
        smoothing, by_scale = self.stage.label_smoothing, self.stage.average == "scales"
        if not (smoothing or by_scale) or output.image_logits is None or output.image_indices is None:
            return output.image_loss
        schedule = output.schedule or self.vargpt.schedule
        decoder = self.vargpt.visual_decoder.with_schedule(schedule)
        loss_QL = decoder.token_losses(output.image_logits, output.image_indices, smoothing)
        if not by_scale:
            return decoder.averaged(loss_QL)
        return torch.stack([loss_QL[:, tokens].mean() for tokens in schedule.slices]).mean()
