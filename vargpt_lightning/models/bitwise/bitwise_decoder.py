"""The bitwise next-scale transformer (Infinity, arXiv 2412.04431): a prompt in, two logits for every bit out.

Parameters are named as in the released Infinity checkpoints. One model serves all schedules of up to 15 scales.

Shapes: B pictures, L visual tokens of all scales, l tokens of one scale, C width, D bits of a token, V = 2 D logits, R
text rows of all prompts, n of one, W width of the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.attention import BlockCache, Places
from vargpt_lightning.models.bitwise.blocks import BitwiseBlock, BlockChunk, Condition
from vargpt_lightning.models.bitwise.losses import average, bit_loss, bit_losses
from vargpt_lightning.models.bitwise.prompt_reader import PromptReader, Prompts
from vargpt_lightning.models.bitwise.rotary import RotaryMode, rotary_table
from vargpt_lightning.models.bitwise.sampling import (
    ON_LOGITS,
    BitRules,
    BitSampling,
    LayerGuidance,
    bit_sampling,
    layer_guidance,
)
from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.core.aspect_ratios import Shape, full_grid
from vargpt_lightning.models.core.losses import ImageLoss
from vargpt_lightning.models.core.scales import MapSize, ScaleSchedule
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.decoder.blocks import HeadNorm
from vargpt_lightning.models.decoder.cache import DecoderCache
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.utils.errors import UserError

LevelEmbedding = Literal["first_chunk", "each_chunk"]
RotaryStart = Literal["scale", "zero"]


class BitwiseDecoder(PromptReader, PictureDecoder):
    """Predicts the bits of every scale of a picture from its prompt and the scales before it.

    `forward` trains it, `generate` draws. Behind a language model, `embed_inputs` or `embed_scale` make what goes in
    there, and `decode` takes what came out in their place. The interface is that of `VisualDecoder`: where that takes
    labels, this takes prompts, or labels all the same, which stand for no prompt whatever they are.

    Args:
        scales: sizes of the token maps (see `ScaleSchedule`), unless a call names others.
        bits: D, of a token: a code's, or four times as many where a token stands for 2 x 2 codes.
        depth: number of blocks.
        width: C.
        heads: attention heads; the width of each is a multiple of 4.
        text_width: W, of an encoded prompt's rows.
        text_rows: the longest prompt that can be dropped or guided against.
        chunks: runs of blocks, of which their names and `level_embedding` speak.
        levels: rows of the scale embedding, so the most scales there may be.
        mlp_ratio: hidden width of the feed-forward layers over C, rounded to a multiple of 256.
        dropout: dropout after attention and feed-forward.
        drop_path: drop-path rate of the last block, growing linearly from 0 at the first.
        norm_eps: epsilon of the normalisations.
        text_dropout: probability of dropping the prompt in training: rows of its own take the place of the prompt's, as
            many as it has.
        scale_weighted: weigh the loss of a scale by the square root of its tokens, not by their number.
        drop_in_evaluation: drop prompts in evaluation mode too, as the released code does.
        level_embedding: add the scale embedding before the first chunk alone, or before each.
        rotary: how the maps of small scales lie on the rotary grid.
        rotary_start: with a cache, turn a scale's tokens by their own places, or ("zero") as if the scale were the
            first: what the released code does where its fused norm is off, and not what it was trained with.
        rounded_text: round the attention over text to bfloat16 in float32 as well, as the released code does.

    Raises:
        UserError: (a ValueError) for sizes that do not fit each other, or a rate that is none.
    """

    def __init__(
        self,
        *,
        scales: Sequence[MapSize] = (1, 2, 4, 6, 8, 12, 16),
        bits: int,
        depth: int,
        width: int,
        heads: int,
        text_width: int,
        text_rows: int = 512,
        chunks: int = 1,
        levels: int = 15,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        text_dropout: float = 0.1,
        scale_weighted: bool = True,
        drop_in_evaluation: bool = False,
        level_embedding: LevelEmbedding = "first_chunk",
        rotary: RotaryMode = "scaled",
        rotary_start: RotaryStart = "scale",
        rounded_text: bool = False,
    ) -> None:
        sizes = {"bits": bits, "depth": depth, "width": width, "heads": heads, "text_width": text_width}
        _check_sizes(**sizes, text_rows=text_rows, chunks=chunks, levels=levels)
        _check_rates(drop_path=drop_path, dropout=dropout, text_dropout=text_dropout)
        super().__init__(width, text_width, text_rows, norm_eps=norm_eps, rounded=rounded_text)
        self.schedule = ScaleSchedule(tuple(scales))
        self.bits, self.depth, self.width, self.heads, self.levels = bits, depth, width, heads, levels
        self.text_dropout, self.drop_in_evaluation = text_dropout, drop_in_evaluation
        self.scale_weighted = scale_weighted
        self.level_embedding, self.rotary, self.rotary_start = level_embedding, rotary, rotary_start

        self.pos_start = nn.Parameter(torch.empty(1, 1, width))
        self.lvl_embed = nn.Embedding(levels, width)
        self.word_embed = nn.Linear(bits, width)
        blocks = [
            BitwiseBlock(
                width,
                heads,
                hidden_width(width, mlp_ratio),
                dropout=dropout,
                drop_path=drop_path * i / max(depth - 1, 1),
                norm_eps=norm_eps,
                rounded=rounded_text,
            )
            for i in range(depth)
        ]
        size = depth // chunks
        if chunks == 1:
            self.blocks = nn.ModuleList(blocks)
        else:
            self.block_chunks = nn.ModuleList(BlockChunk(blocks[i : i + size]) for i in range(0, depth, size))
        self.head_nm = HeadNorm(width, norm_eps)
        self.head = nn.Linear(width, 2 * bits)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fills all parameters as the released code starts training: normal, std sqrt(1 / (3 C)), then damped parts."""
        std = self.start_parameters()
        nn.init.trunc_normal_(self.pos_start, std=std)
        self.reset_prompts(std)
        self.head.weight.mul_(0.02)
        self.head_nm.ada_lin[-1].get_parameter("weight").mul_(1e-3)
        for block in self.layers():
            for branch in (block.sa.proj, block.ca.proj, block.ffn.fc2):
                branch.weight.div_(math.sqrt(2 * self.depth))
            block.ada_gss.normal_(std=self.width**-0.5)
            block.ada_gss[:, :, :2] *= 5e-6
            block.ada_gss[:, :, 2:] *= 1e-3

    def chunks(self) -> Iterator[list[BitwiseBlock]]:
        """Yield the blocks of each chunk."""
        modules = [chunk.module for chunk in self.block_chunks] if hasattr(self, "block_chunks") else [self.blocks]
        for module in modules:
            yield list(module)  # type: ignore[arg-type]

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a decoder of these very weights for other sizes of pictures, on the rotary grid of their aspect ratio.

        Raises:
            UserError: the schedule has more scales than the decoder has embeddings.
        """
        self._check_levels(schedule)
        return super().with_schedule(schedule)

    def layers(self) -> list[BitwiseBlock]:
        """Return all blocks in their order."""
        return [block for chunk in self.chunks() for block in chunk]

    # The picture

    def embed_inputs(
        self, prompts: Prompts | Condition, inputs_BLD: Tensor, *, schedule: ScaleSchedule | None = None
    ) -> Tensor:
        """Start and word embeddings of the whole sequence: x_BLC.

        Args:
            prompts: or what `condition` made of them.
            inputs_BLD: features (B, L - first, D) of the scales from the second on: the codes of the scales before,
                summed and resized.
        """
        start_BfC = self.embed_scale(0, prompts, None, schedule=schedule)
        return torch.cat((start_BfC, self.embed_scale(1, None, inputs_BLD).to(start_BfC.dtype)), dim=1)

    def embed_scale(
        self,
        k: int,
        prompts: Prompts | Condition | None,
        input_BlD: Tensor | None,
        *,
        schedule: ScaleSchedule | None = None,
    ) -> Tensor:
        """One scale's part of `embed_inputs`: needs prompts for k = 0, features (B, l, D) otherwise."""
        if k > 0:
            assert input_BlD is not None
            return self.word_embed(input_BlD.to(self.word_embed.weight.dtype))
        assert prompts is not None
        cond = prompts if isinstance(prompts, Condition) else self.condition(prompts)
        first_tokens = (schedule or self.schedule).first_tokens
        return (cond.pooled_BC[:, None] + self.pos_start).expand(-1, first_tokens, -1)

    def decode(
        self,
        x_BLC: Tensor,
        cond: Condition,
        cache: DecoderCache | None = None,
        k: int | None = None,
        *,
        schedule: ScaleSchedule | None = None,
        grid: Shape | None = None,
        guidance: LayerGuidance | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Logits of every token: logits_BLV.

        Without a cache, x holds all L tokens and each attends to its own scale and those before. With a cache, x holds
        the tokens of scale k, which attend to all that is cached and to each other, and join it; scale 0 starts the
        cache anew, and its condition serves all scales.

        Args:
            schedule: of the pictures; None takes the decoder's own, as all methods do.
            grid: height and width of the rotary grid; None takes that of the schedule's aspect ratio.
            guidance: mix the second half of the batch into the first after some blocks.
            rows: make logits of the first rows alone.

        Raises:
            UserError: the schedule has more scales than the decoder has embeddings.
            ValueError: x has another number of tokens, or scale k is not the one that follows in the cache.
        """
        schedule = schedule or self.schedule
        places = self._places(x_BLC, schedule, cache, k, grid)
        level_LC = self._levels(schedule, places.slices, x_BLC)
        layer = 0
        for number, chunk in enumerate(self.chunks()):
            if number == 0 or self.level_embedding == "each_chunk":
                x_BLC = x_BLC + level_LC
            for block in chunk:
                x_BLC = block(x_BLC, cond, places, cache.layers[layer] if cache is not None else None)
                if guidance is not None and layer in guidance.blocks:
                    x_BLC = guidance.mix(x_BLC)
                layer += 1
        modulation_B12C = self._head_modulation(cond, cache)
        if cache is not None:
            cache.length = places.slices[-1].stop
        return self.head(self.head_nm(x_BLC[:rows], modulation_B12C[:rows]))

    def _head_modulation(self, cond: Condition, cache: DecoderCache | None) -> Tensor:
        if cache is None:
            return self._modulate_head(cond)
        if cache.length == 0 or cache.head_modulation is None:
            cache.head_modulation = self._modulate_head(cond)
        return cache.head_modulation

    def _modulate_head(self, cond: Condition) -> Tensor:
        return self.head_nm.ada_lin(cond.pooled_BC).unflatten(-1, (1, 2, -1))

    def _places(
        self, x_BLC: Tensor, schedule: ScaleSchedule, cache: DecoderCache | None, k: int | None, grid: Shape | None
    ) -> Places:
        slices = schedule.slices if cache is None else _next_slice(schedule, cache, k)
        span = slice(slices[0].start, slices[-1].stop)
        count = span.stop - span.start
        if x_BLC.shape[1] != count:
            raise ValueError(f"x: got {x_BLC.shape[1]} tokens, expected {count}")
        grid = full_grid(schedule) if grid is None else grid
        table_2LP = rotary_table(schedule, grid, self.width // self.heads, self.rotary, x_BLC.device)
        first = span.start if self.rotary_start == "scale" else 0
        mask_LL = schedule.block_causal_mask(x_BLC.device) if cache is None else None
        return Places(slices, table_2LP[:, first : first + count], mask_LL)

    def _levels(self, schedule: ScaleSchedule, slices: tuple[slice, ...], x_BLC: Tensor) -> Tensor:
        self._check_levels(schedule)
        levels_L = schedule.level_ids(x_BLC.device)[slices[0].start : slices[-1].stop]
        return self.lvl_embed(levels_L).to(x_BLC.dtype)

    def _check_levels(self, schedule: ScaleSchedule) -> None:
        if schedule.num_scales > self.levels:
            raise UserError(f"scales: got {schedule.num_scales}, expected at most {self.levels}")

    def loss(self, logits_BLV: Tensor, codes: Tensor, *, schedule: ScaleSchedule | None = None) -> ImageLoss:
        """The cross-entropy of bits (B, L, D), scales weighed as the decoder is set."""
        return bit_loss(logits_BLV, codes, schedule or self.schedule, weighted=self.scale_weighted)

    def token_losses(self, logits_BLV: Tensor, codes: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Each token's cross-entropy (B, L), the mean over its bits."""
        return bit_losses(logits_BLV, codes, label_smoothing).mean(-1)

    def log_probabilities(self, logits_BLV: Tensor, codes: Tensor) -> Tensor:
        """Each token's log-probability (B, L) float32, the sum over its bits."""
        return -bit_losses(logits_BLV, codes).sum(-1)

    def averaged(self, losses_BL: Tensor) -> Tensor:
        """The mean over pictures of all tokens, scales weighed as the decoder is set."""
        return average(losses_BL, self.schedule, weighted=self.scale_weighted)

    def drop_labels(self, labels_B: Tensor, generator: Draws = None) -> Tensor:
        """Return the labels as they are: none of them stands for a prompt."""
        return labels_B

    def forward(
        self,
        prompts: Prompts,
        inputs_BLD: Tensor,
        generator: Draws = None,
        *,
        schedule: ScaleSchedule | None = None,
        dropped_B: Tensor | None = None,
        grid: Shape | None = None,
    ) -> Tensor:
        """Logits_BLV of pictures, some prompts dropped in training: those that `dropped_B` says, or drawn ones."""
        if isinstance(prompts, TextRows):
            if dropped_B is None and (self.training or self.drop_in_evaluation):
                dropped_B = draw(len(prompts), prompts.rows_RW.device, generator) < self.text_dropout
            prompts = prompts if dropped_B is None else self.drop_prompts(prompts, dropped_B)
        cond = self.condition(prompts)
        x_BLC = self.embed_inputs(cond, inputs_BLD, schedule=schedule)
        return self.decode(x_BLC, cond, schedule=schedule, grid=grid)

    # Drawing

    def new_cache(
        self,
        batch: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        *,
        schedule: ScaleSchedule | None = None,
    ) -> DecoderCache:
        """An empty cache for `batch` rows (two per picture with guidance); type and device default to the weights'."""
        weight, tokens = self.head.weight, (schedule or self.schedule).num_tokens
        shape = (batch, self.heads, tokens, self.width // self.heads)
        kind, place = dtype or weight.dtype, torch.device(device or weight.device)
        pairs = [[torch.empty(shape, dtype=kind, device=place) for _ in range(2)] for _ in range(self.depth)]
        return DecoderCache([BlockCache(keys_BHLD=keys, values_BHLD=values) for keys, values in pairs])

    @torch.no_grad()
    def generate(
        self,
        tokenizer: MultiScaleTokenizer,
        prompts: Prompts,
        *,
        sampling: BitSampling | SamplingSettings,
        generator: Generators = None,
        negative: TextRows | None = None,
        given_BnD: Tensor | None = None,
        uniforms_BLD: Tensor | None = None,
        grid: Shape | None = None,
        keep_logits: bool = False,
    ) -> Drawing:
        """Draws one picture per prompt, for `tokenizer.decode(drawing.f_hat_BCHW)` to show. Expects evaluation mode.

        Args:
            tokenizer: sums the codes, at the schedule of the drawing.
            negative: prompts to guide away from; None takes the rows that stand for no prompt.
            given_BnD: bits of the first scales, whole ones, to go on from.
            uniforms_BLD: numbers from [0, 1) to draw bits with, in place of a generator.
            grid: as for `decode`.

        Raises:
            UserError: settings, prompts or given bits do not fit the decoder or the schedule.
        """
        schedule, batch = tokenizer.schedule, len(prompts)
        if isinstance(sampling, SamplingSettings):
            sampling = bit_sampling(sampling, schedule.num_scales)
        if tokenizer.code_size != self.bits or tokenizer.numbers != self.bits:
            raise UserError(f"tokenizer: got {tokenizer.numbers} bits a token, expected {self.bits}")
        rules = BitRules(sampling, generator, uniforms_BLD, given_BnD)
        rules.check(schedule, batch, self.bits, self.depth)
        if negative is not None and len(negative) != batch:
            raise UserError(f"negative: got {len(negative)} prompts, expected {batch}, one for each prompt")
        guided, settings = sampling.guided and isinstance(prompts, TextRows), sampling
        if isinstance(prompts, TextRows) and guided:
            prompts = prompts.joined(self.unconditional(prompts) if negative is None else negative)
        cond, cache = self.condition(prompts), self.new_cache(len(prompts), schedule=schedule)

        def step(k: int, input_BlD: Tensor | None) -> tuple[Tensor, Tensor | None]:
            x_BlC = self.embed_scale(k, cond, input_BlD, schedule=schedule)
            if input_BlD is not None and guided:
                x_BlC = x_BlC.repeat(2, 1, 1)
            mixes = guided and settings.weight(k) != 1 and ON_LOGITS in settings.guidance_at
            guidance = layer_guidance(settings, k, self.depth) if guided else None
            rows = None if mixes else batch
            logits_BlV = self.decode(x_BlC, cond, cache, k, schedule=schedule, grid=grid, guidance=guidance, rows=rows)
            return logits_BlV[:batch], logits_BlV[batch:] if mixes else None

        return next_scale_loop(step, tokenizer, rules, keep_logits=keep_logits)


def hidden_width(width: int, ratio: float) -> int:
    """Return the hidden width of feed-forward layers: the nearest multiple of 256, at least one."""
    return max(1, round(width * ratio / 256)) * 256


def _next_slice(schedule: ScaleSchedule, cache: DecoderCache, k: int | None) -> tuple[slice, ...]:
    if k is None or not 0 <= k < schedule.num_scales:
        raise ValueError(f"k: got {k}, expected 0 to {schedule.num_scales - 1} with a cache")
    span = schedule.slices[k]
    cache.k = k
    if k == 0:
        cache.length = 0
    if cache.length != span.start:
        raise ValueError(f"cache: holds {cache.length} tokens, expected {span.start} before scale {k}")
    return (span,)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}: got {size!r}, expected 1 or more")
    width, heads, depth, chunks = (sizes[name] for name in ("width", "heads", "depth", "chunks"))
    if width % (4 * heads):
        raise UserError(f"width: got {width}, expected a multiple of 4 x the {heads} heads")
    if depth % chunks:
        raise UserError(f"chunks: got {chunks}, expected a divisor of the depth {depth}")


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate < 1 and not (name == "text_dropout" and rate == 1):
            raise UserError(f"{name}: got {rate!r}, expected a number from 0 to below 1")
