"""The assembly: one autoregressive model that reads text and pictures and draws pictures inside its text.

A picture to draw is encoded to indices; the visual decoder embeds them, a projector carries them into the language
model at the `<image_gen>` positions, another carries the hidden states out again, and the decoder turns them into
logits over the codes at the same positions (VARGPT, arXiv 2501.12327, section 3).

Legend: B batch, T text+image sequence, P seen pictures, N feature tokens of one, Q drawn pictures, L visual tokens of
all scales, K scales, V codebook, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from vargpt_lightning.models.conditions import Told, build_start_embedding, rows_before
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.losses import (
    IGNORED,
    LogProbabilities,
    VARGPTOutput,
    text_log_probabilities,
    text_loss,
)
from vargpt_lightning.models.core.masks import PictureLayout
from vargpt_lightning.models.core.packed_rows import record_starts
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.decoders import build_decoder
from vargpt_lightning.models.language.llama import (
    LanguageModel,
    build_generation_projectors,
    build_vision_projector,
    build_vision_tower,
)
from vargpt_lightning.models.parts import check_parts
from vargpt_lightning.models.parts.base import Facts
from vargpt_lightning.models.sequence import DrawnPictures, SequenceModel
from vargpt_lightning.models.tokenizer.build import build_tokenizer
from vargpt_lightning.models.tokenizer.self_correction import random_change
from vargpt_lightning.models.views import view_of
from vargpt_lightning.models.vision.tower import restore_constants
from vargpt_lightning.utils.errors import UserError

__all__ = ["SUBMODULES", "DrawnPictures", "VARGPTModel", "VARGPTOutput"]


class VARGPTModel(SequenceModel):
    """A language model with a vision tower to see and a next-scale decoder to draw.

    Args:
        config: all sizes and settings.

    The weights are fresh: the language model's as transformers makes them, the decoder's and the image tokenizer's as
    their own modules do, the projectors' as `nn.Linear`'s; only EfficientNet comes with trained ones.
    """

    def __init__(self, config: VARGPTConfig) -> None:
        super().__init__()
        self.config = self._whole = config
        self.tokenizer_files: dict[str, bytes] = {}
        self.sampling: dict[str, Any] = {}
        self.settings = config.settings
        self.tokens = config.tokens
        width = config.language.width
        self.language_model = LanguageModel(config.language)
        self.vision_tower = build_vision_tower(config.vision)
        self.vision_projector = build_vision_projector(config.vision, width)
        self.schedules, self.size = config.tokenizer.schedules, 0
        self.image_tokenizer = build_tokenizer(config.tokenizer)
        self.visual_decoder = build_decoder(config)
        self.generation_projector_in, self.generation_projector_out = build_generation_projectors(config)
        self.start_embedding = build_start_embedding(config)

    def use_scales(self, count: int | None) -> None:
        """Draw the first scales alone from now on, with None all of them; raises as `VARGPTConfig.at_scales` does."""
        self.config = self._whole.at_scales(count)
        self.schedules = self.config.tokenizer.schedules
        self.image_tokenizer.schedule = self.visual_decoder.schedule = self.schedules[0]

    def at(self, size: int) -> Self:
        """Return a model of these very weights whose drawn pictures have another of its sizes: `schedules[size]`."""
        if size == self.size:
            return self
        view = view_of(self)
        view.size = size
        view.image_tokenizer = self.image_tokenizer.with_schedule(self.schedules[size])
        view.visual_decoder = self.visual_decoder.with_schedule(self.schedules[size])
        return view

    def of(self, batch: Mapping[str, Any]) -> Self:
        """Return a model of these very weights for the size of a batch's drawn pictures."""
        return self.at(int(batch.get("size", 0)))

    @property
    def null_class(self) -> int:
        """The decoder's class row that means "no class"."""
        return self.config.decoder.classes

    def sampling_settings(self, **changes: Any) -> SamplingSettings:
        """Return the visual sampling settings of this model's preset, with those saved with it and `changes`.

        Raises:
            UserError: a value is out of its range, or a part does not fit this model.
        """
        made = SamplingSettings(**{**self.config.usual_sampling, **self.sampling, **changes})
        check_parts(made.parts, self.facts(made))
        return made

    def facts(self, sampling: SamplingSettings) -> Facts:
        """Return what parts of a sampler are held against."""
        facts = Facts.of(self.config, sampling.cfg, sampling.cfg_schedule, sampling.greedy)
        return replace(facts, shapes=self.schedule.shapes)

    def forward(
        self,
        batch: Mapping[str, Any],
        *,
        decoder_only: bool = False,
        return_text_logits: bool = False,
        generator: Draws = None,
        correction: SelfCorrection | None = None,
        log_probabilities: bool = False,
        hidden_Q: Tensor | None = None,
        as_in_training: bool = False,
    ) -> VARGPTOutput:
        """Return losses, counts and image logits of a collated batch.

        Args:
            batch: `input_ids` (B, T), `attention_mask` (B, T), right-padded; `labels` (B, T), -100 where text is not
                trained; seen pictures in order of appearance as `pixel_values` (P, 3, S, S), or as strips, or as
                `vision_features` (P, N, C); drawn ones as `drawn_pixels` (Q, 3, H, W) in [-1, 1] or `drawn_indices`
                (Q, L), in bits (Q, L, D). What is absent does not occur in the batch. With `segment_ids` (B, T) a row
                holds several records, numbered from 1, padding 0: none sees another, and each counts its positions
                from 0. With several sizes of pictures `size` says which one the drawn ones have; 0 without.
            decoder_only: see `decoder_only`.
            return_text_logits: also return the language model's logits at every position.
            generator: source of prompt and class dropout in training, and of self-correction.
            correction: in training, change codes that are fed on (see `SelfCorrection`); needs `drawn_pixels`.
            log_probabilities: return those of each token of the answers, in place of the text loss.
            hidden_Q: pictures whose prompt is hidden from them; None draws them in training.
            as_in_training: draw pictures in evaluation mode even where the setting `drawn_in_evaluation` says not to,
                as is done for log-probabilities.

        Raises:
            UserError: pictures given and placeholders in `input_ids` do not match.
        """
        if (own := self.of(batch)) is not self:  # called without its hooks, which these of the whole have done
            return own.forward(
                batch,
                decoder_only=decoder_only,
                return_text_logits=return_text_logits,
                generator=generator,
                correction=correction,
                log_probabilities=log_probabilities,
                hidden_Q=hidden_Q,
                as_in_training=as_in_training,
            )
        if decoder_only:
            return self.decoder_only(batch, generator, correction)
        draws = self.training or as_in_training or log_probabilities or self.settings.drawn_in_evaluation
        layout = self.layout(batch["input_ids"])
        drawn = self.drawn_pictures(batch, generator, correction, dropping=hidden_Q is None) if draws else None
        if drawn is not None and hidden_Q is not None and self.settings.condition_dropout == "together":
            drawn = drawn._replace(dropped_Q=hidden_Q)
        starts_BT = record_starts(batch["segment_ids"]) if "segment_ids" in batch else None
        embeds_BTC = self.embed_seen(batch)
        told: Told | None = None
        if drawn is not None:
            before = rows_before(embeds_BTC, layout, starts_BT) if self.conditions.reads == "embeddings" else None
            told = self.conditions.told(drawn.classes_Q, before, drawn.dropped_Q)
        words_QLC = None if drawn is None or told is None else self.words(drawn, told)
        if draws:
            embeds_BTC = self.place_drawn(embeds_BTC, layout, words_QLC)
        mask = self.training_mask(batch, layout, drawn, generator, starts_BT, hidden_Q)
        hidden_BTC = self.language_model.model(embeds_BTC, mask, self.training_positions(batch, starts_BT))
        output = VARGPTOutput()
        if not log_probabilities:
            output = self._text_output(batch, layout if draws else None, hidden_BTC)
        if return_text_logits:
            output.text_logits = self.language_model.lm_head(hidden_BTC)
        if drawn is not None and told is not None:
            drawn_QLC = hidden_BTC[layout.drawn_BT].view(*drawn.indices_QL.shape[:2], -1)
            logits_QLV = self.visual_decoder.decode(
                self.generation_projector_out(drawn_QLC), self._heard(told, drawn, hidden_BTC, layout, starts_BT)
            )
            self._add_image_output(output, logits_QLV, drawn.indices_QL)
        if log_probabilities:
            output.log_probabilities = self._log_probabilities(batch, layout, hidden_BTC, output)
        return output

    def _heard(
        self, told: Told, drawn: DrawnPictures, hidden_BTC: Tensor, layout: PictureLayout, starts_BT: Tensor | None
    ) -> Any:
        """The decoder's condition, with the hidden states that it reads; dropped with the prompt, if at all."""
        if self.conditions.reads != "hidden":
            return self.conditions.heard(told)
        together = self.settings.condition_dropout == "together"
        before = rows_before(hidden_BTC, layout, starts_BT)
        return self.conditions.heard(told, before, drawn.dropped_Q if together else None)

    def decoder_only(
        self, batch: Mapping[str, Any], generator: Draws = None, correction: SelfCorrection | None = None
    ) -> VARGPTOutput:
        """Return the image loss of the drawn pictures with the decoder alone: its own embeddings, the null class.

        Raises:
            UserError: the batch has no drawn pictures.
        """
        fed = self.codes_and_inputs(batch, generator, correction)
        if fed is None:
            raise UserError(f"batch: got keys {sorted(batch)}, expected drawn_pixels or drawn_indices")
        indices_QL, inputs_QLC = fed
        classes_Q = indices_QL.new_full((indices_QL.shape[0],), self.null_class)
        logits_QLV = self.visual_decoder(classes_Q, inputs_QLC, generator)
        output = VARGPTOutput()
        self._add_image_output(output, logits_QLV, indices_QL)
        return output

    def restore_constants(self) -> None:
        """Compute what checkpoints do not hold, and tie what is one; needed after a model on the meta device got its
        weights."""
        self.language_model.restore_constants()
        restore_constants(self.vision_tower)

    @torch.no_grad()
    def drawn_indices(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return the codes (Q, L) of the batch's drawn pictures, or None when it has none."""
        indices_QL = batch.get("drawn_indices")
        pixels_Q3HW = batch.get("drawn_pixels")
        if indices_QL is None and pixels_Q3HW is not None and len(pixels_Q3HW):
            indices_QL = self.image_tokenizer.encode(pixels_Q3HW)
        return indices_QL if indices_QL is not None and len(indices_QL) else None

    @torch.no_grad()
    def codes_and_inputs(
        self, batch: Mapping[str, Any], generator: Draws = None, correction: SelfCorrection | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the codes (Q, L) of the batch's drawn pictures and the decoder's inputs (Q, L - first, C), or None.

        Raises:
            UserError: codes are to be changed on the way, and the batch has them without their pictures.
        """
        if correction is not None and (self.training or self.settings.correction_in_evaluation):
            pixels_Q3HW = batch.get("drawn_pixels")
            if batch.get("drawn_indices") is not None:
                raise UserError("self_correction: got drawn_indices, expected drawn_pixels: codes do not tell features")
            if pixels_Q3HW is None or not len(pixels_Q3HW):
                return None
            change = random_change(self.image_tokenizer, correction, len(pixels_Q3HW), generator)
            return self.image_tokenizer.encode_changed(pixels_Q3HW, change)
        indices_QL = self.drawn_indices(batch)
        return None if indices_QL is None else (indices_QL, self.next_scale_inputs(indices_QL))

    def drawn_pictures(
        self,
        batch: Mapping[str, Any],
        generator: Draws = None,
        correction: SelfCorrection | None = None,
        *,
        dropping: bool = True,
    ) -> DrawnPictures | None:
        """Return the batch's drawn pictures as codes, class rows and inputs, or None when it has none.

        The class row is the null one, or in training the start token's where the settings say so. `dropping` drops some
        of what the decoder is told, where and when the settings do.
        """
        fed = self.codes_and_inputs(batch, generator, correction)
        if fed is None:
            return None
        indices_QL, inputs_QLC = fed
        classes_Q = indices_QL.new_full((len(indices_QL),), self.null_class)
        if self.settings.class_row == "start_token" and self.training:
            start_Q = torch.full_like(classes_Q, self.tokens.image_gen_start)
            classes_Q = self.visual_decoder.drop_labels(start_Q, generator)
        place = batch.get("input_ids", indices_QL).device
        dropped_Q = self._dropped(len(indices_QL), place, generator) if dropping else None
        return DrawnPictures(indices_QL, classes_Q, inputs_QLC, dropped_Q)

    def _dropped(self, count: int, device: torch.device, generator: Draws) -> Tensor | None:
        """Which pictures are drawn without what the decoder is told; where it reads nothing, none is dropped here."""
        reads = self.start_embedding is not None or self.settings.cross_attention != "learned"
        together = self.settings.condition_dropout == "together"
        if not (reads or together) or not (self.training or self.settings.drop_in_evaluation):
            return None
        rate = self.settings.prompt_dropout if together else self.config.decoder.class_dropout
        return draw(count, device, generator) < rate if rate > 0 else None

    @torch.no_grad()
    def next_scale_inputs(self, indices_QL: Tensor) -> Tensor:
        """Return the decoder's inputs (Q, L - first, C): the picture so far, resized to each next scale."""
        return self.image_tokenizer.next_scale_inputs(indices_QL)

    def _text_output(self, batch: Mapping[str, Any], layout: PictureLayout | None, hidden_BTC: Tensor) -> VARGPTOutput:
        labels_BT = self.text_labels(batch, layout)
        if labels_BT is None:
            return VARGPTOutput()
        text = text_loss(hidden_BTC, labels_BT, self.language_model.lm_head)
        return VARGPTOutput(text_loss=text.loss, text_tokens=text.tokens, text_correct=text.correct)

    def _log_probabilities(
        self, batch: Mapping[str, Any], layout: PictureLayout, hidden_BTC: Tensor, output: VARGPTOutput
    ) -> LogProbabilities:
        labels_BT = self.text_labels(batch, layout)
        if labels_BT is None:
            labels_BT = torch.full_like(batch["input_ids"], IGNORED)
        text = text_log_probabilities(hidden_BTC, labels_BT, self.language_model.lm_head)
        codes, logits_QLV = output.image_indices, output.image_logits
        if codes is None or logits_QLV is None:
            return LogProbabilities(*text)
        pictures_B = layout.drawn_BT.sum(1) // codes.shape[1]
        rows_Q = torch.arange(len(pictures_B), device=pictures_B.device).repeat_interleave(pictures_B)
        image_QL = self.visual_decoder.log_probabilities(logits_QLV, codes)
        return LogProbabilities(*text, image_QL, rows_Q, codes[0, 0].numel())

    def _add_image_output(self, output: VARGPTOutput, logits_QLV: Tensor, indices_QL: Tensor) -> None:
        image = self.visual_decoder.loss(logits_QLV, indices_QL)
        output.image_loss, output.image_tokens, output.image_correct, output.image_loss_per_scale = image
        output.image_logits, output.image_indices, output.schedule = logits_QLV, indices_QL, self.schedule


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
