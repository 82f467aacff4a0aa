"""The trunk of the bitwise decoder: its parameters, and the pass from visual tokens to the logits of their bits.

Shapes: B pictures, L visual tokens of all scales, l tokens of one scale, C width, V = 2 D logits of a token's D bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.attention import BlockCache, Places
from vargpt_lightning.models.bitwise.blocks import BitwiseBlock, BlockChunk, Condition
from vargpt_lightning.models.bitwise.prompt_reader import PromptReader
from vargpt_lightning.models.bitwise.rotary import RotaryMode, rotary_table
from vargpt_lightning.models.bitwise.sampling import LayerGuidance
from vargpt_lightning.models.core.aspect_ratios import Shape, full_grid
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.core.settings import LongPrompts
from vargpt_lightning.models.decoder.blocks import HeadNorm
from vargpt_lightning.models.decoder.cache import DecoderCache
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder
from vargpt_lightning.utils.errors import UserError

LevelEmbedding = Literal["first_chunk", "each_chunk"]
RotaryStart = Literal["scale", "zero"]


class BitwiseTrunk(PromptReader, PictureDecoder):
    """All parameters of `BitwiseDecoder`, whose arguments these are, and `decode`.

    Raises:
        UserError: (a ValueError) for sizes that do not fit each other, or a rate that is none.
    """

    schedule: ScaleSchedule

    def __init__(
        self,
        *,
        bits: int,
        depth: int,
        width: int,
        heads: int,
        text_width: int,
        text_rows: int,
        chunks: int,
        levels: int,
        mlp_ratio: float,
        dropout: float,
        drop_path: float,
        norm_eps: float,
        level_embedding: LevelEmbedding,
        rotary: RotaryMode,
        rotary_start: RotaryStart,
        rounded_text: bool,
        long_prompts: LongPrompts,
        prompt_positions: bool,
    ) -> None:
        sizes = {"bits": bits, "depth": depth, "width": width, "heads": heads, "text_width": text_width}
        _check_sizes(**sizes, text_rows=text_rows, chunks=chunks, levels=levels)
        check_rates(drop_path=drop_path, dropout=dropout)
        repeat = long_prompts == "repeat"
        super().__init__(
            width,
            text_width,
            text_rows,
            norm_eps=norm_eps,
            rounded=rounded_text,
            repeat=repeat,
            positions=prompt_positions,
        )
        self.bits, self.depth, self.width, self.heads, self.levels = bits, depth, width, heads, levels
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


def check_rates(**rates: float) -> None:
    """Raise UserError for a rate that is none; all but that of dropped prompts are below 1."""
    for name, rate in rates.items():
        if not 0 <= rate < 1 and not (name == "text_dropout" and rate == 1):
            raise UserError(f"{name}: got {rate!r}, expected a number from 0 to below 1")
