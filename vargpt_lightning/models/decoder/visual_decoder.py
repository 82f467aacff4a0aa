"""The next-scale transformer: VAR (arXiv 2404.02905), by itself or behind a language model's hidden states.

Parameters are named as in the released VAR checkpoints.

Shapes: B batch, L visual tokens of all scales, l tokens of one scale, K scales, C width, V codebook; in inputs_BLC and
input_BlC, C is the code size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.losses import ImageLoss, image_loss, token_losses
from vargpt_lightning.models.core.scales import MapSize, ScaleSchedule
from vargpt_lightning.models.core.shared_random import Draws, draw
from vargpt_lightning.models.decoder.blocks import Block, Condition, HeadNorm, SharedModulation
from vargpt_lightning.models.decoder.cache import DecoderCache
from vargpt_lightning.models.decoder.picture_decoder import PictureDecoder
from vargpt_lightning.models.decoder.positions import all_positions, positions_of, resized_rows
from vargpt_lightning.models.decoder.sampling import Drawing, Generators, SamplingSettings, next_scale_loop
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.utils.errors import UserError

DERIVED_BUFFERS = ("lvl_1L", "attn_bias_for_masking", "zero_k_bias")
"""Last parts of keys in VAR's checkpoints that follow from the schedule alone; nothing here has these names."""


class VisualDecoder(PictureDecoder):
    """Predicts the codes of every scale of a picture from the scales before it.

    By itself it is class-conditional: `forward` trains it, `generate` draws. Behind a language model, `embed_inputs` or
    `embed_scale` make what goes in there, and `decode` takes what came out in their place.

    Args:
        scales: sizes of the token maps, coarse to fine, that positions are learned for; other schedules of as many
            scales take these, resized (`with_schedule`).
        code_size: channels of a code.
        vocabulary: number of codes V.
        depth: number of blocks.
        width: C; 64 * depth by default.
        heads: attention heads; as many as blocks by default.
        classes: number of classes; one additional last row stands for a dropped condition.
        mlp_ratio: hidden width of the feed-forward layers over C.
        dropout: dropout after attention and feed-forward.
        attention_dropout: dropout on attention weights.
        drop_path: drop-path rate of the last block, growing linearly from 0 at the first; 0.1 * depth / 24 by default.
        norm_eps: epsilon of the normalisations.
        shared_adaln: use one projection of the condition for all blocks, with an offset for each block.
        class_dropout: probability of dropping the condition in training.
        qk_norm: queries and keys of unit length with a learned temperature per head.

    Raises:
        UserError: (a ValueError) for sizes that do not fit each other, or a rate that is none.
    """

    def __init__(
        self,
        *,
        scales: Sequence[MapSize],
        code_size: int,
        vocabulary: int,
        depth: int,
        width: int | None = None,
        heads: int | None = None,
        classes: int = 1000,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float | None = None,
        norm_eps: float = 1e-6,
        shared_adaln: bool = False,
        class_dropout: float = 0.1,
        qk_norm: bool = True,
    ) -> None:
        super().__init__()
        width = 64 * depth if width is None else width
        heads = depth if heads is None else heads
        drop_path = 0.1 * depth / 24 if drop_path is None else drop_path
        _check_sizes(depth=depth, width=width, heads=heads, code_size=code_size, vocabulary=vocabulary)
        if classes < 0:
            raise UserError(f"classes: got {classes!r}, expected 0 or more")
        _check_rates(
            dropout=dropout, attention_dropout=attention_dropout, drop_path=drop_path, class_dropout=class_dropout
        )
        self.schedule = self.learned = ScaleSchedule(tuple(scales))
        self.code_size, self.vocabulary, self.classes = code_size, vocabulary, classes
        self.depth, self.width, self.heads = depth, width, heads
        self.class_dropout = class_dropout

        self.word_embed = nn.Linear(code_size, width)
        self.class_emb = nn.Embedding(classes + 1, width)
        self.pos_start = nn.Parameter(torch.empty(1, self.schedule.first_tokens, width))
        self.pos_1LC = nn.Parameter(torch.empty(1, self.schedule.num_tokens, width))
        self.lvl_embed = nn.Embedding(self.schedule.num_scales, width)
        self.shared_ada_lin = (
            nn.Sequential(nn.SiLU(), SharedModulation(width, 6 * width)) if shared_adaln else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=drop_path * i / max(depth - 1, 1),
                norm_eps=norm_eps,
                shared_adaln=shared_adaln,
                qk_norm=qk_norm,
            )
            for i in range(depth)
        )
        self.head_nm = HeadNorm(width, norm_eps)
        self.head = nn.Linear(width, vocabulary)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fills all parameters as the released code starts training: normal, std sqrt(1 / (3 C)), then damped parts."""
        std = self.start_parameters()
        nn.init.trunc_normal_(self.pos_start, std=std)
        nn.init.trunc_normal_(self.pos_1LC, std=std)
        self.head.weight.mul_(0.02)
        self.head_nm.ada_lin[-1].get_parameter("weight").mul_(0.5)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.damp_parameters(self.depth)

    def with_schedule(self, schedule: ScaleSchedule) -> Self:
        """Return a decoder of these very weights for other sizes of pictures: each scale's positions are resized.

        Raises:
            UserError: the schedule has another number of scales.
        """
        own = self.learned.num_scales
        if schedule.num_scales != own:
            raise UserError(f"scales: got {schedule.num_scales} of them, expected {own} as the decoder has")
        return super().with_schedule(schedule)

    def layers(self) -> list[Block]:
        """Return all blocks in their order."""
        return list(self.blocks)  # type: ignore[arg-type]

    def condition(self, labels_B: Tensor) -> Condition:
        """What steers every block for these labels; `classes` is the label of a dropped condition."""
        embedding_BD = self.class_emb(labels_B)
        shared = isinstance(self.shared_ada_lin, nn.Sequential)
        return Condition(embedding_BD, self.shared_ada_lin(embedding_BD) if shared else None)

    def drop_labels(self, labels_B: Tensor, generator: Draws = None) -> Tensor:
        """Replaces each label by the dropped condition's with chance `class_dropout`, in evaluation mode too.

        `forward` calls it in training only; the released code drops conditions in evaluation as well.
        """
        chance_B = draw(len(labels_B), labels_B.device, generator)
        return labels_B.masked_fill(chance_B < self.class_dropout, self.classes)

    def random_labels(self, batch: int, generator: Generators = None) -> Tensor:
        """Labels drawn evenly from the classes: (batch,), from the streams that `generate` then goes on with."""
        if isinstance(generator, Sequence):
            return torch.cat([self.random_labels(1, own) for own in generator])
        device = self.class_emb.weight.device if generator is None else generator.device
        even_N = torch.full((self.classes,), 1.0 / self.classes, dtype=torch.float32, device=device)
        labels_B = torch.multinomial(even_N, batch, replacement=True, generator=generator)
        return labels_B.to(self.class_emb.weight.device)

    def embed_inputs(self, labels_B: Tensor, inputs_BLC: Tensor) -> Tensor:
        """Start, word, level and position embeddings of the whole sequence: x_BLC.

        Args:
            labels_B: classes, whose embeddings fill the first scale.
            inputs_BLC: code features (B, L - first, code_size) of the scales from the second on: the picture as known
                up to the scale before, at the scale's size.
        """
        first = self._embed_start(labels_B)
        x_BLC = torch.cat((first, self._embed_codes(inputs_BLC).to(first.dtype)), dim=1)
        level_L = self.schedule.level_ids(x_BLC.device)
        return x_BLC + (self.lvl_embed(level_L) + self._positions())

    def embed_scale(self, k: int, labels_B: Tensor | None, input_BlC: Tensor | None) -> Tensor:
        """One scale's part of `embed_inputs`: needs labels for k = 0, code features (B, l, code_size) otherwise."""
        if k == 0:
            assert labels_B is not None
            x_BlC = self._embed_start(labels_B)
        else:
            assert input_BlC is not None
            x_BlC = self._embed_codes(input_BlC)
        return x_BlC + (self.lvl_embed.weight[k] + self._positions_of(k))

    def _positions(self) -> Tensor:
        """The position embeddings of all scales: (1, L, C)."""
        return all_positions(self.pos_1LC, self.learned, self.schedule)

    def _positions_of(self, k: int) -> Tensor:
        """Those of a scale: (1, l, C)."""
        return positions_of(k, self.pos_1LC, self.learned, self.schedule)

    def _embed_start(self, labels_B: Tensor) -> Tensor:
        start_1lC = resized_rows(self.pos_start, self.learned.shapes[0], self.schedule.shapes[0])
        return self.class_emb(labels_B)[:, None] + start_1lC

    def _embed_codes(self, codes_BLC: Tensor) -> Tensor:
        return self.word_embed(codes_BLC.to(self.word_embed.weight.dtype))

    def decode(self, x_BLC: Tensor, cond: Condition, cache: DecoderCache | None = None, k: int | None = None) -> Tensor:
        """Logits of every token: logits_BLV.

        Without a cache, x holds all L tokens and each attends to its own scale and those before. With a cache, x holds
        the tokens of scale k, which attend to all that is cached and to each other, and join it; scale 0 starts the
        cache anew, and its condition serves all scales.

        Raises:
            ValueError: x has another number of tokens, or scale k is not the one that follows in the cache.
        """
        slices = self.schedule.slices
        if cache is not None:
            slices = self._next_slices(cache, k)
        count = slices[-1].stop - slices[0].start
        if x_BLC.shape[1] != count:
            raise ValueError(f"x: got {x_BLC.shape[1]} tokens, expected {count}")
        mask_LL = self.schedule.block_causal_mask(x_BLC.device) if cache is None else None
        for i, block in enumerate(self.blocks):
            x_BLC = block(x_BLC, cond, slices, mask_LL, cache.layers[i] if cache is not None else None)
        if cache is None:
            return self.head(self.head_nm(x_BLC, self.head_nm.modulation(cond)))
        if cache.length == 0 or cache.head_modulation is None:
            cache.head_modulation = self.head_nm.modulation(cond)
        cache.length = slices[0].stop
        return self.head(self.head_nm(x_BLC, cache.head_modulation))

    def _next_slices(self, cache: DecoderCache, k: int | None) -> tuple[slice, ...]:
        if k is None or not 0 <= k < self.schedule.num_scales:
            raise ValueError(f"k: got {k}, expected 0 to {self.schedule.num_scales - 1} with a cache")
        span = self.schedule.slices[k]
        cache.k = k
        if k == 0:
            cache.length = 0
        if cache.length != span.start:
            raise ValueError(f"cache: holds {cache.length} tokens, expected {span.start} before scale {k}")
        return (span,)

    def loss(self, logits_BLV: Tensor, codes: Tensor) -> ImageLoss:
        """The cross-entropy of codes (B, L)."""
        return image_loss(logits_BLV, codes, self.schedule)

    def token_losses(self, logits_BLV: Tensor, codes: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Each token's cross-entropy (B, L)."""
        return token_losses(logits_BLV, codes, label_smoothing)

    def log_probabilities(self, logits_BLV: Tensor, codes: Tensor) -> Tensor:
        """Each token's log-probability (B, L) float32."""
        return -token_losses(logits_BLV, codes)

    def averaged(self, losses_BL: Tensor) -> Tensor:
        """The mean over pictures and tokens."""
        return losses_BL.mean()

    def forward(self, labels_B: Tensor, inputs_BLC: Tensor, generator: Draws = None) -> Tensor:
        """Class-conditional logits_BLV, with conditions dropped in training; arguments as for `embed_inputs`."""
        if self.training:
            labels_B = self.drop_labels(labels_B, generator)
        return self.decode(self.embed_inputs(labels_B, inputs_BLC), self.condition(labels_B))

    def new_cache(
        self, batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> DecoderCache:
        """An empty cache for `batch` rows (two per picture with guidance); type and device default to the weights'."""
        weight = self.head.weight
        shape = (batch, self.heads, self.schedule.num_tokens, self.width // self.heads)
        return DecoderCache.empty(self.depth, shape, dtype or weight.dtype, torch.device(device or weight.device))

    @torch.no_grad()
    def generate(
        self,
        tokenizer: MultiScaleTokenizer,
        labels_B: Tensor,
        *,
        sampling: SamplingSettings,
        generator: Generators = None,
        keep_logits: bool = False,
    ) -> Drawing:
        """Draws one picture per label, for `tokenizer.decode(drawing.f_hat_BCHW)` to show. Expects evaluation mode.

        Raises:
            ValueError: the tokenizer has other scales, code size or vocabulary, or a label is out of range.
        """
        self._check_generation(tokenizer, labels_B)
        batch = len(labels_B)
        if sampling.guided:
            labels_B = torch.cat((labels_B, torch.full_like(labels_B, self.classes)))
        cond, cache = self.condition(labels_B), self.new_cache(len(labels_B))

        def step(k: int, input_BlC: Tensor | None) -> tuple[Tensor, Tensor | None]:
            x_BlC = self.embed_scale(k, labels_B, input_BlC)
            if k > 0 and sampling.guided:
                x_BlC = x_BlC.repeat(2, 1, 1)
            logits_BlV = self.decode(x_BlC, cond, cache, k)
            return logits_BlV[:batch], logits_BlV[batch:] if sampling.guided else None

        return next_scale_loop(step, tokenizer, sampling, generator, keep_logits=keep_logits)

    def _check_generation(self, tokenizer: MultiScaleTokenizer, labels_B: Tensor) -> None:
        theirs = (tokenizer.schedule.sizes, tokenizer.code_size, tokenizer.vocabulary)
        ours = (self.schedule.sizes, self.code_size, self.vocabulary)
        if theirs != ours:
            raise ValueError(f"tokenizer: got (scales, code_size, vocabulary) {theirs}, expected {ours}")
        if labels_B.numel() == 0 or labels_B.min() < 0 or labels_B.max() > self.classes:
            raise ValueError(f"labels: got {labels_B.tolist()}, expected at least one, each from 0 to {self.classes}")


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}: got {size!r}, expected 1 or more")
    if sizes["width"] % sizes["heads"]:
        raise UserError(f"width: got {sizes['width']}, expected a multiple of the {sizes['heads']} heads")


def _check_rates(drop_path: float, **rates: float) -> None:
    if not 0 <= drop_path < 1:
        raise UserError(f"drop_path: got {drop_path!r}, expected a number from 0 to below 1")
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise UserError(f"{name}: got {rate!r}, expected a number from 0 to 1")
