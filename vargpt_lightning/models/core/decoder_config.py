"""The decoder of drawn pictures as plain values: VAR's, or Infinity's where pictures are bits. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from vargpt_lightning.models.core.settings import DECODER_SETTINGS
from vargpt_lightning.utils.ranges import (
    Depth,
    Epsilon,
    Range,
    Ranged,
    Rate,
    Rows,
    Share,
    Size,
    require,
    require_choice,
)

LEVEL_EMBEDDINGS = ("first_chunk", "each_chunk")
ROTARY_MODES = ("scaled", "interpolated", "plain")
ROTARY_STARTS = ("scale", "zero")
LONG_PROMPTS = ("refuse", "repeat")


@dataclass
class DecoderConfig(Ranged):
    """The decoder of drawn pictures: `VisualDecoder`, or `BitwiseDecoder` where `tokenizer.kind` is bits.

    Args:
        depth: number of blocks.
        width: width of the decoder; None for 64 times the depth.
        heads: attention heads; None for as many as blocks.
        classes: indices: number of classes; one additional last row stands for a dropped condition.
        mlp_ratio: hidden width of the feed-forward layers in widths; with bits rounded to a multiple of 256.
        dropout: dropout after attention and feed-forward.
        attention_dropout: indices: dropout on attention weights.
        drop_path: drop-path rate of the last block, growing linearly from 0 at the first; None for 0.1 * depth / 24, or
            0.1 with bits.
        norm_eps: epsilon of the normalisations.
        shared_adaln: indices: use one projection of the condition for all blocks, with an offset for each block; with
            bits there is always one.
        class_dropout: probability of dropping the condition in training: the class, or with bits the prompt.
        qk_norm: indices: queries and keys of unit length with a learned temperature per head, as always with bits.
        chunks: bits: runs of blocks, of which names of weights and level_embedding speak.
        text_width: bits: width of an encoded prompt's rows; None for the decoder's.
        text_rows: bits: the longest prompt that can be dropped or guided against.
        levels: bits: rows of the scale embedding, the most scales there may be.
        drop_in_evaluation: bits: drop conditions in evaluation too, as the released code does; None as the preset says.
        level_embedding: bits: add the scale embedding before the first chunk alone, or before each.
        rotary: bits: how maps of small scales lie on the rotary grid: spread over it (scaled), as its resized cosines
            and sines (interpolated), or in its corner (plain).
        rotary_start: bits: when drawing, turn a scale by its own places, or from zero, as the released code does where
            its fused norm is off.
        rounded_text: bits: round the attention over text to bfloat16 in float32 as well, as the released code does.
        scale_weighted: bits: weigh the loss of a scale by the square root of its tokens, not by their number; None as
            the preset says.
        long_prompts: bits: prompts of more than text_rows rows, where they are dropped or guided against: "refuse", as
            the released code ends with an error, or "repeat" the last row for those beyond; None as the preset says.
        start_rows: bits: rows of the start embedding, where class_row asks for it; the last one alone is used. Released
            checkpoints have one for each id up to the start token's.
        learned_positions: bits: tokens are told their places by an embedding each on their way into the language model,
            as VAR's are; the released code has rotary places alone.
        prompt_positions: bits: each row of a prompt is told how far from the end it stands, by a learned embedding;
            for cross_attention: embeddings, whose rows do not know it.
    """

    place: ClassVar[str] = "decoder"

    depth: Depth = 16
    width: Size | None = None
    heads: Size | None = None
    classes: Rows = 1000
    mlp_ratio: Annotated[float, Range(0, 1024, above=True)] = 4.0
    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    drop_path: Rate | None = None
    norm_eps: Epsilon = 1e-6
    shared_adaln: bool = False
    class_dropout: Share = 0.1
    qk_norm: bool = True
    chunks: Depth = 1
    text_width: Size | None = None
    text_rows: Rows = 512
    levels: Depth = 15
    drop_in_evaluation: bool | None = None
    level_embedding: Literal["first_chunk", "each_chunk"] = "first_chunk"
    rotary: Literal["scaled", "interpolated", "plain"] = "scaled"
    rotary_start: Literal["scale", "zero"] = "scale"
    rounded_text: bool = False
    scale_weighted: bool | None = None
    long_prompts: Literal["refuse", "repeat"] | None = None
    start_rows: Rows = 1
    learned_positions: bool = False
    prompt_positions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        width, heads = self.resolved_width, self.resolved_heads
        require(width % heads == 0, "decoder.width", width, f"a multiple of the {heads} heads")
        require(int(width * self.mlp_ratio) > 0, "decoder.mlp_ratio", self.mlp_ratio, "a hidden width of 1 or more")
        require(self.depth % self.chunks == 0, "decoder.chunks", self.chunks, f"a divisor of the depth {self.depth}")
        require_choice("decoder.level_embedding", self.level_embedding, LEVEL_EMBEDDINGS)
        require_choice("decoder.rotary", self.rotary, ROTARY_MODES)
        require_choice("decoder.rotary_start", self.rotary_start, ROTARY_STARTS)
        require_choice("decoder.long_prompts", self.long_prompts or "repeat", LONG_PROMPTS)

    @property
    def resolved_width(self) -> int:
        """Width, the default resolved."""
        return self.width or 64 * self.depth

    @property
    def resolved_heads(self) -> int:
        """Heads, the default resolved."""
        return self.heads or self.depth

    @property
    def resolved_text_width(self) -> int:
        """Width of a prompt's rows, the default resolved."""
        return self.text_width or self.resolved_width

    def resolved_drop_path(self, codes: str) -> float:
        """Drop-path rate of the last block, the default for "indices" or "bits" resolved."""
        usual = 0.1 if codes == "bits" else 0.1 * self.depth / 24
        return usual if self.drop_path is None else self.drop_path

    def for_indices(self) -> dict[str, Any]:
        """Return the arguments of `VisualDecoder` that the image tokenizer does not settle."""
        return {key: value for key, value in asdict(self).items() if key not in _BITS_ALONE}

    def for_bits(self) -> dict[str, Any]:
        """Return the arguments of `BitwiseDecoder` that neither the image tokenizer nor the preset settles.

        Raises:
            UserError: the heads are too many for a rotary embedding in two directions.
        """
        width, heads = self.resolved_width, self.resolved_heads
        require(width % (4 * heads) == 0, "decoder.width", width, f"a multiple of 4 x the {heads} heads with bits")
        values = {
            key: value
            for key, value in asdict(self).items()
            if key not in (*_INDICES_ALONE, *DECODER_SETTINGS, "start_rows")
        }
        return values | {
            "width": width,
            "heads": heads,
            "text_width": self.resolved_text_width,
            "drop_path": self.resolved_drop_path("bits"),
            "text_dropout": values.pop("class_dropout"),
        }


_INDICES_ALONE = ("classes", "attention_dropout", "shared_adaln", "qk_norm")
_BITS_ALONE = (
    "chunks",
    "text_width",
    "text_rows",
    "levels",
    "drop_in_evaluation",
    "level_embedding",
    "rotary",
    "rotary_start",
    "rounded_text",
    "scale_weighted",
    "long_prompts",
    "start_rows",
    "learned_positions",
    "prompt_positions",
)
