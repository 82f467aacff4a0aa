"""The golden bitwise decoders, and what the tests of them share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.golden import Golden, fill
from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder
from vargpt_lightning.models.bitwise.text import TextRows
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer

ROTARY = {0: "plain", 1: "interpolated", 2: "scaled"}


def golden_decoder(gold: Golden, name: str, **changes: Any) -> BitwiseDecoder:
    """The decoder of a golden case with its weights; `changes` are arguments of its own."""
    case = gold.meta["cases"][name]
    sizes, options = case["model"], case["options"]
    arguments = {
        "bits": case["d"] * (4 if options.get("patchify") else 1),
        "depth": sizes["depth"],
        "width": sizes["embed_dim"],
        "heads": sizes["num_heads"],
        "chunks": sizes["block_chunks"],
        "text_width": sizes["text_channels"],
        "text_rows": sizes["text_maxlen"],
        "drop_path": 0.0,
        "rotary": ROTARY[options.get("rope", 2)],
        "level_embedding": "first_chunk" if options.get("first_only", 1) else "each_chunk",
        "rotary_start": "scale" if options.get("fused", True) else "zero",
        "rounded_text": case.get("cross_attention", "fp32") != "fp32",
    }
    decoder = BitwiseDecoder(**{**arguments, **changes})
    rules = [(pattern, tuple(e) if isinstance(e, list) else e) for pattern, e in gold.meta["fill_rules"]]
    assert fill(decoder, gold.meta["seed"], rules) == case["weights_sha256"]
    return decoder


def golden_schedule(case: dict[str, Any], key: str = "schedule") -> ScaleSchedule:
    return ScaleSchedule(tuple((height, width) for _, height, width in case[key]))


def small_tokenizer(case: dict[str, Any]) -> BitTokenizer:
    """An image tokenizer with the case's bits; its networks do not matter."""
    return BitTokenizer(
        scales=golden_schedule(case).sizes,
        channels=8,
        channel_multipliers=(1,),
        residual_blocks=1,
        bits=case["d"],
        patchify=bool(case["options"].get("patchify")),
    )


def token_bits(bits_BNd: Tensor, case: dict[str, Any]) -> Tensor:
    """Bits of a golden drawing as those of tokens: the golden ones are those of positions."""
    if not case["options"].get("patchify"):
        return bits_BNd.long()
    quantizer, sizes = small_tokenizer(case).quantize, golden_schedule(case, "vae_schedule")
    maps = [
        bits_BNd[:, part].transpose(1, 2).unflatten(2, shape)
        for part, shape in zip(sizes.slices, sizes.shapes, strict=True)
    ]
    return torch.cat([quantizer.rows(map_Bdhw) for map_Bdhw in maps], dim=1).long()


def small_decoder(**changes: Any) -> BitwiseDecoder:
    """A decoder of two blocks with fresh weights."""
    torch.manual_seed(0)
    arguments = {
        "scales": (1, 2, (3, 2)),
        "bits": 6,
        "depth": 2,
        "width": 32,
        "heads": 2,
        "text_width": 12,
        "text_rows": 5,
        "drop_path": 0.0,
    }
    return BitwiseDecoder(**{**arguments, **changes}).eval()


def small_text(lengths: tuple[int, ...] = (2, 4), width: int = 12, seed: int = 3) -> TextRows:
    rows_RW = torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(seed))
    return TextRows(rows_RW, lengths)


def woken(decoder: BitwiseDecoder) -> BitwiseDecoder:
    """The decoder with weights from a seed in place of the nearly closed gates that it begins with."""
    fill(decoder, 5, [(r"ada_gss$", -1), (r"(lvl_embed\.weight|pos_start)$", -1)])
    return decoder
