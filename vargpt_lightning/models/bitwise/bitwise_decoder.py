"""The bitwise next-scale transformer (Infinity, arXiv 2412.04431): a prompt in, two logits for every bit out.

Parameters are named as in the released Infinity checkpoints. One model serves all schedules of up to 15 scales.

Shapes: B pictures, L visual tokens of all scales, l tokens of one scale, C width, D bits of a token, V = 2 D logits, R
text rows of all prompts, n of one, W width of the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vargpt_lightning.models.bitwise.blocks import Condition
from vargpt_lightning.models.bitwise.losses import average, bit_loss, bit_losses
from vargpt_lightning.models.bitwise.prompt_reader import Prompts
from vargpt_lightning.models.bitwise.rotary import RotaryMode
from vargpt_lightning.models.bitwise.sampling import (
    ON_LOGITS,
    BitRules,
    BitSampling,
    bit_sampling,
    layer_guidance,
)
from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.bitwise.trunk import BitwiseTrunk, LevelEmbedding, RotaryStart, check_rates
from vargpt_lightning.models.core.aspect_ratios import Shape
from vargpt_lightning.models.core.losses import ImageLoss
from vargpt_lightning.models.core.scales import MapSize, ScaleSchedule
from vargpt_lightning.models.core.settings import LongPrompts
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.decoder.positions import all_positions, positions_of
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.utils.errors import UserError

INPUT_STD = 0.5
"""Of learned positions and of words where there are any, at the start."""


class BitwiseDecoder(BitwiseTrunk):
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
        long_prompts: prompts of more rows than `text_rows`, where they are dropped or guided against: "refuse" them, or
            let the last of these stand for the rest ("repeat").
        learned_positions: add an embedding of each token's place to what goes in, as VAR does; the released code has
            rotary places alone, which a language model in between is not told of.
        prompt_positions: tell each row of a prompt how far from the end it stands, by a learned embedding; rows that an
            encoder of text has made know it already.

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
        long_prompts: LongPrompts = "refuse",
        learned_positions: bool = False,
        prompt_positions: bool = False,
    ) -> None:
        check_rates(text_dropout=text_dropout)
        super().__init__(
            bits=bits,
            depth=depth,
            width=width,
            heads=heads,
            text_width=text_width,
            text_rows=text_rows,
            chunks=chunks,
            levels=levels,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            drop_path=drop_path,
            norm_eps=norm_eps,
            level_embedding=level_embedding,
            rotary=rotary,
            rotary_start=rotary_start,
            rounded_text=rounded_text,
            long_prompts=long_prompts,
            prompt_positions=prompt_positions,
        )
        self.schedule = self.learned = ScaleSchedule(tuple(scales))
        self.text_dropout, self.drop_in_evaluation = text_dropout, drop_in_evaluation
        self.scale_weighted = scale_weighted
        self.pos_1LC: nn.Parameter | None = None
        if learned_positions:
            self.pos_1LC = nn.Parameter(torch.empty(1, self.schedule.num_tokens, width))
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fills all parameters as the released code starts training; with learned positions, these and words larger.

        At the released code's size of words the bias of the projector into a language model is most of what that gets,
        and visual tokens all look alike to it for the first hundreds of steps.
        """
        super().reset_parameters()
        positions = getattr(self, "pos_1LC", None)
        if positions is not None:
            nn.init.trunc_normal_(positions, std=INPUT_STD)
            # the features of a token's bits have the length 1
            nn.init.trunc_normal_(self.word_embed.weight, std=INPUT_STD)

    # The picture

    def embed_inputs(
        self, prompts: Prompts | Condition, inputs_BLD: Tensor, *, schedule: ScaleSchedule | None = None
    ) -> Tensor:
        """Start, word and learned position embeddings of the whole sequence: x_BLC.

        Args:
            prompts: or what `condition` made of them.
            inputs_BLD: features (B, L - first, D) of the scales from the second on: the codes of the scales before,
                summed and resized.
        """
        start_BfC = self.embed_scale(0, prompts, None, schedule=schedule)
        words_BlC = self._embed_codes(inputs_BLD).to(start_BfC.dtype)
        if self.pos_1LC is not None:
            positions_1LC = all_positions(self.pos_1LC, self.learned, schedule or self.schedule)
            words_BlC = words_BlC + positions_1LC[:, start_BfC.shape[1] :]
        return torch.cat((start_BfC, words_BlC), dim=1)

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
            x_BlC = self._embed_codes(input_BlD)
            return x_BlC if self.pos_1LC is None else x_BlC + self._positions_of(k, schedule)
        assert prompts is not None
        cond = prompts if isinstance(prompts, Condition) else self.condition(prompts)
        first_tokens = (schedule or self.schedule).first_tokens
        start_BfC = (cond.pooled_BC[:, None] + self.pos_start).expand(-1, first_tokens, -1)
        return start_BfC if self.pos_1LC is None else start_BfC + self._positions_of(0, schedule)

    def _embed_codes(self, input_BlD: Tensor) -> Tensor:
        return self.word_embed(input_BlD.to(self.word_embed.weight.dtype))

    def _positions_of(self, k: int, schedule: ScaleSchedule | None) -> Tensor:
        assert self.pos_1LC is not None
        return positions_of(k, self.pos_1LC, self.learned, schedule or self.schedule)

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
