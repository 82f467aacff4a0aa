"""Recipe of the weights and pictures that the golden files were made with; numpy's frozen RandomState streams only.

Every value is k/64 * 2**exponent with |k| <= 255 (one plus that for the gains of norms), hence exact in float16: state
dicts stored in float16 are bit-exact after ``.float()``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

# The first pattern that a parameter's name matches gives the exponent of its standard deviation, or ("one", exponent)
# for values around one; None and no match leave it to the shape.
Exponent = int | None | tuple[str, int]
Rules = Sequence[tuple[str, Exponent]]

VAR_RULES: Rules = [
    (r"scale_mul_1H11$", ("one", -3)),  # exp(1) keeps attention soft
    (r"(ada_lin\.1\.weight|ada_gss)$", -4),
    (r"(class_emb|lvl_embed)\.weight$|pos_1LC$|pos_start$", -2),
    (r"head\.weight$", -1),
]
LLM_RULES: Rules = [
    (r"(norm|layernorm|layrnorm|ln_q)\w*\.weight$", ("one", -4)),
    (r"embed_tokens\.weight$", -1),
    (r"lm_head\.weight$", -1),
    (r"(class_embedding|position_embedding\.weight)$", -2),
]


def vae_rules(encoder_out: int, embedding: int, decoder_out: int) -> Rules:
    """Rules for an image tokenizer, given the exponents of its outer convolutions and of its codebook."""
    return [
        (r"norm\w*\.weight$", ("one", -4)),
        (r"norm\w*\.bias$", -4),
        (r"quantize\.embedding\.weight$", embedding),
        (r"encoder\.conv_out\.weight$", encoder_out),
        (r"decoder\.conv_out\.weight$", decoder_out),
    ]


def tensor(seed: int, key: str, shape: Sequence[int], exponent: int) -> np.ndarray:
    """Normal values of standard deviation 2**exponent, determined by seed and key."""
    stream = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4], "little")
    normal = np.random.RandomState(stream).standard_normal(int(np.prod(shape, dtype=np.int64)))
    k = np.clip(np.rint(normal * 64), -255, 255)
    return (k / 64 * 2.0**exponent).astype(np.float32).reshape(tuple(shape))


def exponent_by_shape(shape: Sequence[int]) -> int:
    """Standard deviation of about 1/sqrt(inputs) for matrices and kernels, 2**-4 for vectors."""
    if (len(shape) >= 2 and shape[0] > 1) or len(shape) == 2:
        return round(math.log2(1 / math.sqrt(int(np.prod(shape[1:])))))
    return -4


def value(seed: int, key: str, shape: Sequence[int], rules: Rules = ()) -> np.ndarray:
    """The value of one parameter."""
    exponent = next((exponent for pattern, exponent in rules if re.search(pattern, key)), None)
    if isinstance(exponent, tuple):
        return 1 + tensor(seed, key, shape, exponent[1])
    return tensor(seed, key, shape, exponent_by_shape(shape) if exponent is None else exponent)


def fill(named: nn.Module | Iterable[tuple[str, torch.Tensor]], seed: int, rules: Rules = (), prefix: str = "") -> str:
    """Overwrite parameters in place; return the sha256 over their names and bytes in the order of their names."""
    pairs = named.named_parameters() if isinstance(named, nn.Module) else named
    digest = hashlib.sha256()
    with torch.no_grad():
        for key, parameter in sorted(pairs, key=lambda pair: pair[0]):
            values = value(seed, prefix + key, tuple(parameter.shape), rules)
            parameter.copy_(torch.from_numpy(values))
            digest.update(key.encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def smooth_images(seed: int, batch: int, height: int, width: int) -> np.ndarray:
    """Pictures (batch, 3, height, width) in [-1, 1], multiples of 1/128: coarse blocks with fine noise on top."""
    pictures = np.zeros((batch, 3, height, width))
    for level, amplitude in ((4, 0.45), (16, 0.3), (height, 0.15)):
        noise = tensor(seed, f"img{level}", (batch, 3, level, level), 0)
        repeat = height // level
        pictures += amplitude * np.repeat(np.repeat(noise, repeat, 2), repeat, 3)
    return (np.clip(np.rint(pictures * 128), -128, 127) / 128).astype(np.float32)
