"""The sizes and settings of a VARGPT as plain values, checked when they are made.

Where the paper (arXiv 2501.12327) and the authors' released code differ, a field of `VARGPTConfig` says which is
meant; left at None it takes the value of the chosen preset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from vargpt_lightning.models.core.aspect_ratios import ratio_beside
from vargpt_lightning.models.core.decoder_config import DecoderConfig
from vargpt_lightning.models.core.families import OURS, check_family, read_published, sizes_of_published
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.settings import (
    DECODER_SETTINGS,
    PRESET_SAMPLING,
    PRESET_STAGES,
    PRESETS,
    AfterImage,
    ClassRow,
    ConditionDropout,
    CrossAttention,
    Preset,
    Published,
    SeenPositions,
    Settings,
    TextLoss,
    Unconditional,
    VisualAttention,
    preset_settings,
)
from vargpt_lightning.models.core.vision_config import VisionConfig
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import (
    Depth,
    Epsilon,
    Factor,
    Range,
    Ranged,
    Rate,
    Rows,
    Share,
    Size,
    require,
    require_choice,
)

__all__ = [
    "PRESETS",
    "PRESET_STAGES",
    "DecoderConfig",
    "LanguageConfig",
    "Settings",
    "TokenIds",
    "TokenizerConfig",
    "VARGPTConfig",
    "VisionConfig",
    "full_size",
]


RowId = Annotated[int, Range(0, 2**24)]


@dataclass
class LanguageConfig(Ranged):
    """The language model: its family and sizes.

    Args:
        width: hidden size.
        layers: number of blocks.
        heads: attention heads of a block; must divide the width, unless head_width is given.
        kv_heads: key and value heads; None uses as many as `heads`.
        mlp: inner width of the feed-forward block; None uses 8/3 of the width, rounded up to a multiple of 32.
        vocabulary: rows of the token embedding, special tokens included.
        max_positions: longest sequence, counting text and visual tokens.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of the normalisations.
        attention_dropout: dropout on attention weights.
        initializer_range: standard deviation of fresh weights.
        tie_embeddings: use one table for input and output embeddings.
        attention: attention implementation, by transformers' name.
        checkpoint_activations: recompute each layer in the backward pass instead of keeping its activations.
        family: "llama" (our own network, which needs no import of transformers), or transformers' model type of
            another: "qwen2" (also Qwen2.5), "qwen3", "mistral", "smollm3", "phi" or "gemma3_text".
        like: a folder or hub id of a transformers model, whose config.json says the family and all sizes; of those
            given beside it, max_positions and a larger vocabulary count. Weights come by `init_from`.
        head_width: width of a head; None uses the width divided by the heads.
        options: further keys of the family's configuration in transformers, such as hidden_act.
    """

    place: ClassVar[str] = "language"

    width: Size = 256
    layers: Depth = 4
    heads: Size = 4
    kv_heads: Size | None = None
    mlp: Size | None = None
    vocabulary: Rows = 32064
    max_positions: Rows = 2048
    rope_theta: Annotated[float, Range(0, 10**15, above=True)] = 10000.0
    norm_eps: Epsilon = 1e-5
    attention_dropout: Rate = 0.0
    initializer_range: Annotated[float, Range(0, 100)] = 0.02
    tie_embeddings: bool = False
    attention: str = "sdpa"
    checkpoint_activations: bool = False
    family: str = OURS
    like: str | None = None
    head_width: Size | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.like is not None:
            self._take(sizes_of_published(read_published(self.like)))
        super().__post_init__()
        whole = self.head_width is not None or self.width % self.heads == 0
        require(whole, "language.heads", self.heads, f"a divisor of the width {self.width}")
        kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        require(self.heads % kv_heads == 0, "language.kv_heads", kv_heads, f"a divisor of the {self.heads} heads")
        check_family(self.family, self.options)

    def _take(self, published: dict[str, Any]) -> None:
        """Take what a config.json says, but for another context and more rows than it has; then it is forgotten."""
        default = {entry.name: entry.default for entry in fields(self)}
        if self.max_positions != default["max_positions"]:
            published["max_positions"] = self.max_positions
        if self.vocabulary != default["vocabulary"]:
            published["vocabulary"] = max(self.vocabulary, published["vocabulary"])
        for key, value in published.items():
            setattr(self, key, value)
        self.like = None

    @property
    def head_size(self) -> int:
        """Width of an attention head, the default resolved."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def mlp_width(self) -> int:
        """Inner width of the feed-forward block, the default resolved."""
        return self.mlp if self.mlp is not None else -(-self.width * 8 // 3 // 32) * 32


MapSide = Annotated[int, Range(1, 4096)]
"""Tokens."""
PictureSize = Annotated[float, Range(0, 100, above=True)] | tuple[MapSide | tuple[MapSide, MapSide], ...]
"""An aspect ratio, or a schedule."""


@dataclass
class TokenizerConfig(Ranged):
    """The image tokenizer: its kind and its sizes.

    Args:
        kind: "indices" (a token is a row of a codebook: VAR's VQ-VAE) or "bits" (a token is so many bits, without a
            codebook: Infinity's BSQ tokenizer).
        scales: sizes of the token maps, from the coarsest to the finest: sides of squares, or [height, width].
        sizes: other sizes of pictures that are drawn too: aspect ratios (height over width) of Infinity's table, where
            `scales` are first ones of its square, or lists like `scales`, of as many scales. Pictures of the data go to
            the nearest aspect ratio.
        channels: width of the convolutions at full resolution.
        channel_multipliers: width of each resolution in units of `channels`; each step halves the resolution.
        residual_blocks: residual blocks a resolution; the decoder has one more.
        code_size: channels of the features that are quantized; of bits, how many a position has.
        vocabulary: indices: how many codes there are.
        beta: weight of the commitment term.
        residual_ratio: indices: share of the convolution in a phi blend; 0 turns the blends off.
        phi: indices: number of blends: one for all scales (shared), phi_count (partial), one for each (separate).
        phi_count: indices: number of blends if partial.
        normalize_codes: indices: choose codes by cosine similarity instead of distance.
        attention: self-attention at the lowest resolution; None, as published: with indices, not with bits.
        quant_kernel: indices: kernel size of the convolutions before and after the quantizer, odd.
        dropout: dropout in the residual blocks.
        patch: side of the squares of pixels that the first convolution is given as channels, and the last one gives.
        local: encode each token's square of pixels by itself, so that equal squares have equal features wherever they
            stand; the decoder is as without.
        patchify: bits: a token stands for 2 x 2 positions of the features and has 4 times code_size bits.
        entropy_weight: bits: weight of the entropy terms, which keep bits in use.
        entropy_sharpness: bits: how sharply the entropy terms take a feature for a bit.
    """

    place: ClassVar[str] = "tokenizer"

    kind: Literal["indices", "bits"] = "indices"
    scales: tuple[MapSide | tuple[MapSide, MapSide], ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    sizes: tuple[PictureSize, ...] = ()
    channels: Size = 160
    channel_multipliers: tuple[Annotated[int, Range(1, 1024)], ...] = (1, 1, 2, 2, 4)
    residual_blocks: Depth = 2
    code_size: Size = 32
    vocabulary: Rows = 4096
    beta: Factor = 0.25
    residual_ratio: Share = 0.5
    phi: Literal["partial", "shared", "separate"] = "partial"
    phi_count: Annotated[int, Range(1, 1024)] = 4
    normalize_codes: bool = False
    attention: bool | None = None
    quant_kernel: Annotated[int, Range(1, 99)] = 3
    dropout: Rate = 0.0
    patch: Annotated[int, Range(1, 64)] = 1
    local: bool = False
    patchify: bool = False
    entropy_weight: Factor = 0.1
    entropy_sharpness: Annotated[float, Range(0, 10_000, above=True)] = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("tokenizer.kind", self.kind, ("indices", "bits"))
        # resolved here, so that a run's record says the same as before there were bits
        self.attention = self.kind == "indices" if self.attention is None else self.attention
        steps = len(self.channel_multipliers)
        try:
            self.scales = ScaleSchedule(self.scales).sizes
        except UserError as error:
            raise UserError(f"tokenizer.{error}") from error
        self._check_sizes()
        if self.kind == "indices":
            require(not self.patchify, "tokenizer.patchify", self.patchify, "false with tokenizer.kind indices")
        require(1 <= steps <= 12, "tokenizer.channel_multipliers", self.channel_multipliers, "1 to 12 of them")
        require(self.quant_kernel % 2 == 1, "tokenizer.quant_kernel", self.quant_kernel, "an odd number")

    def _check_sizes(self) -> None:
        try:
            self.sizes = tuple(
                float(size) if isinstance(size, float | int) else ScaleSchedule(tuple(size)).sizes
                for size in self.sizes
            )
            shapes = [schedule.final_shape for schedule in self.schedules]
        except UserError as error:
            raise UserError(f"tokenizer.sizes: {error}") from error
        counts = {schedule.num_scales for schedule in self.schedules}
        expected = f"as many scales in each as the {len(self.scales)} of tokenizer.scales"
        require(len(counts) == 1, "tokenizer.sizes", self.sizes, expected)
        require(len(set(shapes)) == len(shapes), "tokenizer.sizes", self.sizes, "sizes that differ from each other")

    @property
    def schedule(self) -> ScaleSchedule:
        """The scale schedule of `scales`."""
        return ScaleSchedule(tuple(self.scales))

    @property
    def schedules(self) -> tuple[ScaleSchedule, ...]:
        """The schedules of all sizes of pictures, that of `scales` first.

        Raises:
            UserError: a ratio is not in the table, or the scales are not of its square.
        """
        own = self.schedule
        others = (ratio_beside(own, size) if isinstance(size, float) else ScaleSchedule(size) for size in self.sizes)
        return (own, *others)

    @property
    def largest(self) -> int:
        """Which of the sizes has the most tokens."""
        counts = [schedule.num_tokens for schedule in self.schedules]
        return counts.index(max(counts))

    @property
    def picture_shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width in pixels of all sizes of pictures."""
        return tuple(
            (height * self.downsampling, width * self.downsampling)
            for height, width in (schedule.final_shape for schedule in self.schedules)
        )

    @property
    def downsampling(self) -> int:
        """Pixels a token in each direction."""
        return (2 if self.patchify else 1) * self.patch * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Height and width of the pictures in pixels."""
        height, width = self.schedule.final_shape
        return height * self.downsampling, width * self.downsampling

    @property
    def picture_size(self) -> int:
        """Side of square pictures in pixels.

        Raises:
            UserError: they are no squares.
        """
        height, width = self.picture_shape
        require(height == width, "tokenizer.scales", self.scales, "square maps here")
        return height

    @property
    def token_channels(self) -> int:
        """Channels of a token's features; of bits, how many a token has."""
        return self.code_size * (4 if self.patchify else 1)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the tokenizer's class."""
        values = asdict(self)
        bits = values.pop("kind") == "bits"
        del values["sizes"]
        for key in INDICES_ALONE if bits else BITS_ALONE:
            del values[key]
        if bits:
            values["bits"] = values.pop("code_size")
        return values


INDICES_ALONE = ("vocabulary", "residual_ratio", "phi", "phi_count", "normalize_codes", "quant_kernel")
BITS_ALONE = ("patchify", "entropy_weight", "entropy_sharpness")


@dataclass
class TokenIds(Ranged):
    """Token ids with a special meaning; the defaults are those of VARGPT-LLaVA-v1.

    Args:
        bos: begins every text.
        eos: ends an answer.
        pad: fills up rows.
        image: stands for each feature token of a seen picture.
        image_gen_start, image_gen_end: before and after a drawn picture.
        image_gen: stands for each of its visual tokens.
    """

    place: ClassVar[str] = "tokens"

    bos: RowId = 1
    eos: RowId = 2
    pad: RowId = 32001
    image: RowId = 32000
    image_gen_start: RowId = 32002
    image_gen_end: RowId = 32003
    image_gen: RowId = 32004


@dataclass
class VARGPTConfig(Ranged):
    """All sizes and settings of a VARGPT.

    Args:
        preset: sets all settings that are None: "paper" or "official" are VARGPT's, "v1_1" VARGPT-v1.1's.
        published: with preset v1_1: as its "paper" describes it (the default), or as the "official" released code does.
        unused_layer_norm: include the unused layer norms that official checkpoints have in both generation projectors,
            so that every key of such a checkpoint can be loaded.
        generation_projectors: projectors between visual decoder and language model: "two": one for each direction, as
            in the paper; "shared": the same one for both; "none". The last two need a decoder as wide as the language
            model.
        chat_template: how conversations are written: "built_in" (LLaVA-1.5's format), or "tokenizer": as the chat
            template of the language model's own tokenizer says. None takes the tokenizer's for all families but
            "llama", and the built-in one with a text tokenizer that was trained on the data.

    Other arguments are those of `Settings`.

    Raises:
        UserError: (a ValueError) naming the key, its value and what was expected.
    """

    language: LanguageConfig = field(default_factory=LanguageConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    tokens: TokenIds = field(default_factory=TokenIds)
    preset: Preset = "paper"
    published: Published | None = None
    visual_attention: VisualAttention | None = None
    unconditional: Unconditional | None = None
    prompt_dropout: Share | None = None
    condition_dropout: ConditionDropout | None = None
    text_loss: TextLoss | None = None
    top_p: Share | None = None
    after_image: AfterImage | None = None
    class_row: ClassRow | None = None
    cross_attention: CrossAttention | None = None
    picture_multiple: Annotated[int, Range(1, 4096)] | None = None
    seen_positions: SeenPositions | None = None
    drawn_in_evaluation: bool | None = None
    correction_in_evaluation: bool | None = None
    unused_layer_norm: bool = False
    generation_projectors: Literal["two", "shared", "none"] = "two"
    chat_template: Literal["built_in", "tokenizer"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("preset", self.preset, (*PRESETS, "v1_1"))
        require_choice("published", self.published or "paper", ("paper", "official"))
        alone = self.preset == "v1_1" or self.published is None
        require(alone, "published", self.published, f"none with preset {self.preset}, which says it by itself")
        require_choice("generation_projectors", self.generation_projectors, ("two", "shared", "none"))
        require_choice("chat_template", self.chat_template or "built_in", ("built_in", "tokenizer"))
        self._check_widths()
        ids = asdict(self.tokens)
        for key, value in ids.items():
            expected = f"a row of the vocabulary of {self.language.vocabulary}"
            require(0 <= value < self.language.vocabulary, f"tokens.{key}", value, expected)
        self._check_reading()
        if self.tokenizer.kind == "bits":
            self.decoder.for_bits()
            scales, levels = self.tokenizer.schedule.num_scales, self.decoder.levels
            require(scales <= levels, "decoder.levels", levels, f"{scales} or more, the scales of the image tokenizer")
        visual = [ids[key] for key in ("image", "image_gen_start", "image_gen", "image_gen_end")]
        require(len(set(visual)) == 4, "tokens", ids, "four different ids for the picture tokens")
        if self.settings.class_row == "start_token":
            expected = f"more classes than the start token's id {self.tokens.image_gen_start}"
            require(
                self.decoder.classes > self.tokens.image_gen_start, "decoder.classes", self.decoder.classes, expected
            )

    @property
    def own_chat(self) -> bool | None:
        """Whether the tokenizer's own chat template is used; None unless the tokenizer was trained on the data."""
        default = False if self.language.family == OURS else None
        return default if self.chat_template is None else self.chat_template == "tokenizer"

    @property
    def decoder_width(self) -> int:
        """Width of the visual decoder, the default resolved."""
        return self.decoder.resolved_width

    def _check_widths(self) -> None:
        fits = self.generation_projectors == "two" or self.decoder_width == self.language.width
        expected = f"two where decoder.width={self.decoder_width} is not language.width={self.language.width}"
        require(fits, "generation_projectors", self.generation_projectors, expected)

    def _check_reading(self) -> None:
        """Refuse settings of a decoder of bits where there is none, and widths that do not fit them."""
        settings, decoder = self.settings, self.decoder
        bits_alone = {"cross_attention": "learned", "class_row": None}
        for key, free in bits_alone.items():
            value = getattr(settings, key)
            needs = value != free if free else value == "start_embedding"
            require(
                not needs or self.tokenizer.kind == "bits",
                "tokenizer.kind",
                self.tokenizer.kind,
                f"bits with {key} {value}",
            )
        width = {"hidden": decoder.resolved_width, "embeddings": self.language.width}.get(settings.cross_attention)
        if width is not None:
            expected = f"{width} with cross_attention {settings.cross_attention}"
            require(decoder.resolved_text_width == width, "decoder.text_width", decoder.resolved_text_width, expected)
        if settings.cross_attention == "embeddings":
            expected = "null with cross_attention embeddings, whose prompts are the condition"
            require(settings.class_row == "null", "class_row", settings.class_row, expected)

    @property
    def usual_sampling(self) -> dict[str, Any]:
        """How drawings are sampled unless something else is said."""
        return {"top_p": self.settings.top_p, **PRESET_SAMPLING.get(self.preset, {})}

    def at_scales(self, count: int | None) -> VARGPTConfig:
        """Return the same with the first scales of pictures alone, so a smaller picture; None for all of them.

        Raises:
            UserError: pictures are no bits, whose weights alone serve any schedule, or have fewer scales.
        """
        if count is None:
            return self
        kind, scales = self.tokenizer.kind, self.tokenizer.scales
        require(kind == "bits", "tokenizer.kind", kind, "bits where a stage draws the first scales alone")
        require(1 <= count <= len(scales), "scales", count, f"1 to {len(scales)}, those of model.tokenizer.scales")
        sizes = tuple(each if isinstance(each, float) else tuple(each)[:count] for each in self.tokenizer.sizes)
        return replace(self, tokenizer=replace(self.tokenizer, scales=scales[:count], sizes=sizes))

    @property
    def picture_lengths(self) -> tuple[int, ...]:
        """Places of a drawn picture of each size in a sequence: its tokens, and what fills them up to a multiple."""
        multiple = self.settings.picture_multiple
        return tuple(-(-schedule.num_tokens // multiple) * multiple for schedule in self.tokenizer.schedules)

    @property
    def picture_length(self) -> int:
        """Places of a drawn picture of the first size."""
        return self.picture_lengths[0]

    @property
    def settings(self) -> Settings:
        """The preset's settings with this configuration's own in place."""
        own = {}
        for name in (entry.name for entry in fields(Settings)):
            value = getattr(self.decoder if name in DECODER_SETTINGS else self, name)
            if value is not None:
                own[name] = value
        return replace(preset_settings(self.preset, self.published), **own)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VARGPTConfig:
        """Make a configuration from what `to_dict` returned.

        Raises:
            UserError: naming a key that is not known, or a value that is not allowed.
        """
        parts = {
            "language": LanguageConfig,
            "vision": VisionConfig,
            "tokenizer": TokenizerConfig,
            "decoder": DecoderConfig,
            "tokens": TokenIds,
        }
        known = {entry.name for entry in fields(cls)}
        arguments: dict[str, Any] = {}
        for key, value in values.items():
            require(key in known, key, value, "a key among " + ", ".join(sorted(known)))
            arguments[key] = _part_from_dict(parts[key], key, value) if key in parts else value
        return cls(**arguments)


def _part_from_dict(kind: type, name: str, values: dict[str, Any]) -> Any:
    known = {entry.name for entry in fields(kind)}
    for key, value in values.items():
        require(key in known, f"{name}.{key}", value, "a key among " + ", ".join(sorted(known)))
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def full_size(preset: Preset = "official") -> VARGPTConfig:
    """Return the 7B+2B model: LLaVA-1.5-7B, CLIP ViT-L/14 at 336 px, the 256 px VQ-VAE and VAR-d30.

    Preset "official" has the sizes of VARGPT-LLaVA-v1 (32,004 class rows, unused layer norms); "paper" the 1,001
    class rows of the published VAR-d30.
    """
    official = preset == "official"
    return VARGPTConfig(
        language=LanguageConfig(
            width=4096, layers=32, heads=32, mlp=11008, vocabulary=32064, max_positions=4096, initializer_range=0.02
        ),
        vision=VisionConfig(kind="clip", picture_size=336),
        tokenizer=TokenizerConfig(),
        decoder=DecoderConfig(depth=30, classes=32003 if official else 1000),
        preset=preset,
        unused_layer_norm=official,
    )
