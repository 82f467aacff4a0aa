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
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.models.core.losses import (
    IGNORED,
    LogProbabilities,
    VARGPTOutput,
    text_log_probabilities,
    text_loss,
)
from vargpt_lightning.models.core.masks import (
    PictureLayout,
    attention_spans,
    block_mask,
    dense_mask,
    find_pictures,
    kernel_mask,
)
from vargpt_lightning.models.core.packed_rows import labels_inside, record_positions, record_starts, records_with
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.decoders import build_decoder
from vargpt_lightning.models.language.llama import (
    LanguageModel,
    build_generation_projectors,
    build_vision_projector,
    build_vision_tower,
    check_pictures,
    projector_dtype,
)
from vargpt_lightning.models.parts import check_parts
from vargpt_lightning.models.parts.base import Facts
from vargpt_lightning.models.tokenizer.build import build_tokenizer
from vargpt_lightning.models.tokenizer.self_correction import random_change
from vargpt_lightning.models.views import view_of
from vargpt_lightning.models.vision.tower import restore_constants
from vargpt_lightning.utils.errors import UserError

__all__ = ["SUBMODULES", "DrawnPictures", "VARGPTModel", "VARGPTOutput"]


class DrawnPictures(NamedTuple):
    """Of the pictures that a batch draws: codes, (Q, L) or in bits (Q, L, D), class rows (Q,) and the decoder's inputs
    (Q, L - first, C)."""

    indices_QL: Tensor
    classes_Q: Tensor
    inputs_QLC: Tensor


class VARGPTModel(nn.Module):
    """A language model with a vision tower to see and a next-scale decoder to draw.

    Args:
        config: all sizes and settings.

    The weights are fresh: the language model's as transformers makes them, the decoder's and the image tokenizer's as
    their own modules do, the projectors' as `nn.Linear`'s; only EfficientNet comes with trained ones.
    """

    def __init__(self, config: VARGPTConfig) -> None:
        super().__init__()
        self.config = config
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

    @property
    def schedule(self) -> ScaleSchedule:
        """The scale schedule of drawn pictures."""
        return self.image_tokenizer.schedule

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
        made = SamplingSettings(**{"top_p": self.settings.top_p, **self.sampling, **changes})
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
            )
        if decoder_only:
            return self.decoder_only(batch, generator, correction)
        input_ids_BT = batch["input_ids"]
        layout = find_pictures(input_ids_BT, self.tokens, self.schedule.num_tokens)
        drawn = self.drawn_pictures(batch, generator, correction)
        embeds_BTC = self.embed(batch, layout, drawn)
        starts_BT = record_starts(batch["segment_ids"]) if "segment_ids" in batch else None
        mask = self.training_mask(batch, layout, drawn, generator, starts_BT, hidden_Q)
        positions_BT = None if starts_BT is None else record_positions(starts_BT)
        hidden_BTC = self.language_model.model(embeds_BTC, mask, positions_BT)
        output = VARGPTOutput() if log_probabilities else self._text_output(batch, layout, hidden_BTC)
        if return_text_logits:
            output.text_logits = self.language_model.lm_head(hidden_BTC)
        if drawn is not None:
            drawn_QLC = hidden_BTC[layout.drawn_BT].view(*drawn.indices_QL.shape[:2], -1)
            logits_QLV = self.visual_decoder.decode(
                self.generation_projector_out(drawn_QLC), self.visual_decoder.condition(drawn.classes_Q)
            )
            self._add_image_output(output, logits_QLV, drawn.indices_QL)
        if log_probabilities:
            output.log_probabilities = self._log_probabilities(batch, layout, hidden_BTC, output)
        return output

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

    def see(self, pixels_P3SS: Tensor) -> Tensor:
        """Return the tower's features (P, N, C) of normalised pictures.

        Raises:
            UserError: the model has no tower, or the pictures have another size.
        """
        if self.vision_tower is None:
            raise UserError("pixel_values: got pictures, expected none because vision.kind is 'none'")
        check_pictures(pixels_P3SS, self.config.vision)
        return self.vision_tower(pixels_P3SS)

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
        if correction is not None and self.training:
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
        self, batch: Mapping[str, Any], generator: Draws = None, correction: SelfCorrection | None = None
    ) -> DrawnPictures | None:
        """Return the batch's drawn pictures as codes, class rows and inputs, or None when it has none.

        The class row is the null one, or in training the start token's where the settings say so.
        """
        fed = self.codes_and_inputs(batch, generator, correction)
        if fed is None:
            return None
        indices_QL, inputs_QLC = fed
        classes_Q = indices_QL.new_full((len(indices_QL),), self.null_class)
        if self.settings.class_row == "start_token" and self.training:
            start_Q = torch.full_like(classes_Q, self.tokens.image_gen_start)
            classes_Q = self.visual_decoder.drop_labels(start_Q, generator)
        return DrawnPictures(indices_QL, classes_Q, inputs_QLC)

    @torch.no_grad()
    def next_scale_inputs(self, indices_QL: Tensor) -> Tensor:
        """Return the decoder's inputs (Q, L - first, C): the picture so far, resized to each next scale."""
        return self.image_tokenizer.next_scale_inputs(indices_QL)

    def embed(self, batch: Mapping[str, Any], layout: PictureLayout, drawn: DrawnPictures | Tensor | None) -> Tensor:
        """Return the language model's inputs (B, T, C): text embeddings, and the pictures' in their places.

        Drawn pictures of several sizes are given as what `words` makes of each, one behind the other: (1, N, C).
        """
        embeds_BTC = self.language_model.embed(batch["input_ids"])
        seen_BT = batch["input_ids"] == self.tokens.image
        features_PNC = batch.get("vision_features")
        if features_PNC is None and batch.get("pixel_values") is not None:
            features_PNC = self.see(batch["pixel_values"])
        projector = self.vision_projector
        if features_PNC is not None and features_PNC.numel() and projector is not None:
            # a projector that is frozen is in eval mode and gets all of them
            features_PNC = dropout(features_PNC, self.config.vision.dropout, projector.training)
            features_PNC = projector(features_PNC.to(projector_dtype(projector)))
        embeds_BTC = _place(embeds_BTC, seen_BT, features_PNC, "seen")
        words_QLC = self.words(drawn) if isinstance(drawn, DrawnPictures) else drawn
        return _place(embeds_BTC, layout.drawn_BT, words_QLC, "drawn")

    def words(self, drawn: DrawnPictures) -> Tensor:
        """Return drawn pictures as the language model's inputs (Q, L, C)."""
        return self.generation_projector_in(self.visual_decoder.embed_inputs(drawn.classes_Q, drawn.inputs_QLC))

    def training_mask(
        self,
        batch: Mapping[str, Any],
        layout: PictureLayout,
        drawn: DrawnPictures | None,
        generator: Draws = None,
        starts_BT: Tensor | None = None,
        hidden_Q: Tensor | None = None,
    ) -> Any:
        """Return the language model's mask, or None where plain causal attention gives the same.

        It is made once for all layers: (B, 1, T, T), or FlexAttention's block mask where that is the kernel. Padding
        stands on the right, so under causal attention no valid position ever sees it. `starts_BT` says where each
        position's record begins, in rows of several; `hidden_Q` is as for `forward`.

        Raises:
            UserError: a mask is needed, and the language model's attention kernel takes none.
        """
        valid_BT = batch["attention_mask"].bool()
        if hidden_Q is not None:
            hidden_Q = hidden_Q if bool(hidden_Q.any()) else None
        elif drawn is not None and self.training and self.settings.prompt_dropout > 0:
            hidden_Q = draw(len(drawn.indices_QL), valid_BT.device, generator) < self.settings.prompt_dropout
        if starts_BT is None:
            plain = drawn is None or (self.settings.visual_attention == "causal" and hidden_Q is None)
            # Where padding is a target too, what it attends to shows in the loss.
            if plain and (drawn is None or self.settings.text_loss == "answer" or bool(valid_BT.all())):
                return None
        spans = attention_spans(layout, valid_BT, self.schedule, self.settings.visual_attention, hidden_Q, starts_BT)
        kernel = self.language_model.kernel
        if kernel == "flex_attention":
            return block_mask(spans)
        return kernel_mask(dense_mask(spans), kernel, self.language_model.lm_head.weight.dtype)

    def text_labels(self, batch: Mapping[str, Any], layout: PictureLayout | None = None) -> Tensor | None:
        """Return the text targets (B, T), -100 where none is trained; None for a batch without labels.

        A batch may bring them as `text_targets`, where they are not those that its ids and labels would have.
        """
        labels_BT: Tensor | None = batch.get("labels")
        if labels_BT is None:
            return None
        if "text_targets" in batch:
            return batch["text_targets"]
        own = self.of(batch)
        segments_BT = batch.get("segment_ids")
        if self.settings.text_loss == "all":
            if layout is None:
                layout = find_pictures(batch["input_ids"], self.tokens, own.schedule.num_tokens)
            visual_BT = layout.drawn_BT | (batch["input_ids"] == self.tokens.image)
            every_BT = batch["input_ids"].masked_fill(visual_BT, IGNORED)
            drawn_BT = layout.drawn_BT
            drawing_BT = drawn_BT.any(1, keepdim=True) if segments_BT is None else records_with(drawn_BT, segments_BT)
            labels_BT = torch.where(drawing_BT, every_BT, labels_BT)
        if segments_BT is not None:
            labels_BT = labels_inside(labels_BT, segments_BT)
        return labels_BT

    def _text_output(self, batch: Mapping[str, Any], layout: PictureLayout, hidden_BTC: Tensor) -> VARGPTOutput:
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


def _place(embeds_BTC: Tensor, where_BT: Tensor, pictures: Tensor | None, use: str) -> Tensor:
    """Put picture tokens, in their order, at the positions that wait for them."""
    waiting = int(where_BT.sum())
    given = 0 if pictures is None else pictures.shape[0] * pictures.shape[1]
    if waiting != given:
        raise UserError(
            f"input_ids: {waiting} positions wait for tokens of {use} pictures, but the batch gives {given}"
        )
    if pictures is None:
        return embeds_BTC
    return embeds_BTC.masked_scatter(where_BT[..., None], pictures.flatten(0, 1).to(embeds_BTC.dtype))


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
