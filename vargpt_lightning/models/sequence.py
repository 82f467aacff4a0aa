"""What the sequences of a batch are to the language model: inputs, positions, mask and text targets.

Legend: B batch, T text+image sequence, P seen pictures, N feature tokens of one, Q drawn pictures, L visual tokens of
all scales, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from vargpt_lightning.models.conditions import PictureConditions, Told, rows_before
from vargpt_lightning.models.core.config import TokenIds, VARGPTConfig
from vargpt_lightning.models.core.losses import IGNORED
from vargpt_lightning.models.core.masks import (
    PictureLayout,
    attention_spans,
    block_mask,
    dense_mask,
    find_pictures,
    kernel_mask,
)
from vargpt_lightning.models.core.packed_rows import labels_inside, record_positions, records_with
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.settings import Settings
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder
from vargpt_lightning.models.language.kv_cache import Kept, LanguageCache
from vargpt_lightning.models.language.llama import LanguageModel, check_pictures, projector_dtype
from vargpt_lightning.models.language.seen_positions import seen_positions
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.models.vision.strips import Strips
from vargpt_lightning.models.vision.tower import NATIVE
from vargpt_lightning.utils.errors import UserError


class DrawnPictures(NamedTuple):
    """Of the pictures that a batch draws: codes, (Q, L) or in bits (Q, L, D), class rows (Q,), the decoder's inputs
    (Q, L - first, C), and which of them are dropped from what the decoder is told (Q,), None for none."""

    indices_QL: Tensor
    classes_Q: Tensor
    inputs_QLC: Tensor
    dropped_Q: Tensor | None = None


class SequenceModel(nn.Module):
    """The part of a VARGPT that makes a language model's inputs of batches, and reads its targets out of them.

    Attributes are those of `VARGPTModel`.
    """

    config: VARGPTConfig
    size: int
    settings: Settings
    tokens: TokenIds
    language_model: LanguageModel
    vision_tower: nn.Module | None
    vision_projector: nn.Module | None
    image_tokenizer: ImageTokenizer | BitTokenizer
    visual_decoder: PictureDecoder
    generation_projector_in: nn.Module
    generation_projector_out: nn.Module
    start_embedding: nn.Embedding | None

    @property
    def schedule(self) -> ScaleSchedule:
        """The scale schedule of drawn pictures."""
        return self.image_tokenizer.schedule

    @property
    def conditions(self) -> PictureConditions:
        """What makes the conditions of drawn pictures."""
        return PictureConditions(self.config, self.visual_decoder, self.start_embedding, self.generation_projector_out)

    @property
    def picture_length(self) -> int:
        """Places of a drawn picture in a sequence."""
        return self.config.picture_lengths[self.size]

    def language_cache(self, rows: int, capacity: int) -> LanguageCache:
        """Return an empty cache for the language model, which keeps what the decoder reads of a prompt."""
        reads = self.settings.cross_attention
        keeps: Kept | None = "hidden" if reads == "hidden" else "inputs" if reads == "embeddings" else None
        return LanguageCache(self.language_model, rows, capacity, keeps)

    def layout(self, input_ids_BT: Tensor) -> PictureLayout:
        """Return where the drawn pictures of a batch lie."""
        return find_pictures(input_ids_BT, self.tokens, self.schedule.num_tokens, self.picture_length)

    def see(self, pixels_P3SS: Tensor) -> Tensor:
        """Return the tower's features (P, N, C) of normalised pictures.

        Raises:
            UserError: the model has no tower, or the pictures have another size.
        """
        if self.vision_tower is None:
            raise UserError("pixel_values: got pictures, expected none because vision.kind is 'none'")
        check_pictures(pixels_P3SS, self.config.vision)
        return self.vision_tower(pixels_P3SS)

    def embed(self, batch: Mapping[str, Any], layout: PictureLayout, drawn: DrawnPictures | None) -> Tensor:
        """Return the language model's inputs (B, T, C): text embeddings, and the pictures' in their places."""
        embeds_BTC, words_QLC = self.embed_seen(batch), None
        if drawn is not None:
            before = rows_before(embeds_BTC, layout) if self.conditions.reads == "embeddings" else None
            words_QLC = self.words(drawn, self.conditions.told(drawn.classes_Q, before, drawn.dropped_Q))
        return self.place_drawn(embeds_BTC, layout, words_QLC)

    def embed_seen(self, batch: Mapping[str, Any]) -> Tensor:
        """Return text embeddings (B, T, C), with seen pictures in their places."""
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
        return _place(embeds_BTC, seen_BT, features_PNC, "seen")

    def words(self, drawn: DrawnPictures, told: Told) -> Tensor:
        """Return drawn pictures as the language model's inputs (Q, places, C), filled up with zeros' projection.

        Args:
            told: what `conditions` tells the decoder of them.
        """
        words_QLC = self.visual_decoder.embed_inputs(told, drawn.inputs_QLC)
        rest = self.picture_length - words_QLC.shape[1]
        return self.generation_projector_in(pad(words_QLC, (0, 0, 0, rest)) if rest else words_QLC)

    def place_drawn(self, embeds_BTC: Tensor, layout: PictureLayout, words_QLC: Tensor | None) -> Tensor:
        """Return inputs (B, T, C) with drawn pictures in their places; those of several sizes as one row of all."""
        return _place(embeds_BTC, layout.places_BT, words_QLC, "drawn")

    def training_positions(self, batch: Mapping[str, Any], starts_BT: Tensor | None = None) -> Tensor | None:
        """Return the positions of a batch, (B, T) or in three dimensions (3, B, T); None for 0, 1, 2, ...

        Raises:
            UserError: the language model wants the shapes of seen pictures, and the batch does not tell them.
        """
        if self.settings.seen_positions == "grid" and self.language_model.three_dimensional:
            return self.grid_positions(batch, starts_BT)
        return None if starts_BT is None else record_positions(starts_BT)

    def grid_positions(self, batch: Mapping[str, Any], starts_BT: Tensor | None = None) -> Tensor | None:
        """Return positions in three dimensions (3, B, T), None where no picture is seen; errors as above."""
        seen_BT, shapes_P2 = batch["input_ids"] == self.tokens.image, batch.get("seen_shapes")
        if not bool(seen_BT.any()):
            return None if starts_BT is None else record_positions(starts_BT)
        if shapes_P2 is None and not self.config.vision.native:
            shapes_P2 = self._square_shapes(int(seen_BT.sum()) // max(self.config.vision.patches, 1))
        elif shapes_P2 is None and batch.get("pixel_values") is not None:
            shapes_P2 = self.seen_shapes(batch["pixel_values"])
        if shapes_P2 is not None and shapes_P2.is_meta:  # of pictures without numbers; as long as any
            shapes_P2 = torch.tensor([[1, self.config.vision.patches]]).expand(len(shapes_P2), -1)
        if shapes_P2 is None:
            raise UserError(
                "vision_features: got features without their pictures' shapes, expected pixel_values or seen_shapes: "
                "the language model's positions have three dimensions (data.cache_features: false gives pictures)"
            )
        return seen_positions(seen_BT, shapes_P2, self.config.vision.patches, starts_BT)

    def seen_shapes(self, pixels: Tensor) -> Tensor:
        """Return rows and columns (P, 2) of the feature tokens of seen pictures."""
        if not self.config.vision.native:
            return self._square_shapes(len(pixels))
        strips = Strips.read(pixels, NATIVE[self.config.vision.squaring] ** 2)
        return torch.stack((strips.height_P, strips.width_P), -1)

    def _square_shapes(self, count: int) -> Tensor:
        return torch.full((count, 2), math.isqrt(self.config.vision.patches))

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
        position's record begins, in rows of several; `hidden_Q` whose context is hidden, None draws it in training.

        Raises:
            UserError: a mask is needed, and the language model's attention kernel takes none.
        """
        valid_BT = batch["attention_mask"].bool()
        if hidden_Q is not None:
            hidden_Q = hidden_Q if bool(hidden_Q.any()) else None
        elif drawn is not None and self.settings.condition_dropout == "together":
            hidden_Q = drawn.dropped_Q
        elif drawn is not None and self.training and self.settings.prompt_dropout > 0:
            hidden_Q = draw(len(drawn.indices_QL), valid_BT.device, generator) < self.settings.prompt_dropout
        if starts_BT is None:
            plain = drawn is None or (self.settings.visual_attention == "causal" and hidden_Q is None)
            # Where padding is a target too, what it attends to shows in the loss.
            unseen = drawn is None and self.settings.drawn_in_evaluation
            if plain and (unseen or self.settings.text_loss == "answer" or bool(valid_BT.all())):
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
        segments_BT = batch.get("segment_ids")
        if self.settings.text_loss != "answer" and (self.training or self.settings.drawn_in_evaluation or layout):
            drawn_BT = visual_BT = batch["input_ids"] == self.tokens.image_gen
            if self.settings.text_loss == "all":
                visual_BT = drawn_BT | (batch["input_ids"] == self.tokens.image)
            every_BT = batch["input_ids"].masked_fill(visual_BT, IGNORED)
            drawing_BT = drawn_BT.any(1, keepdim=True) if segments_BT is None else records_with(drawn_BT, segments_BT)
            labels_BT = torch.where(drawing_BT, every_BT, labels_BT)
        if segments_BT is not None:
            labels_BT = labels_inside(labels_BT, segments_BT)
        return labels_BT


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
