"""Golden values of the published code on tiny models: ``tests/data/golden/NAME.json`` and ``NAME.safetensors``.

    gold = load_golden("a1_vqvae_small")
    gold.meta["config"], gold.tensors["idx"], gold.under("sd.")

``fill`` and ``smooth_images`` make the weights and pictures that belong to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.data.golden.weights import LLM_RULES, VAR_RULES, fill, smooth_images, vae_rules

__all__ = [
    "LLM_RULES",
    "VAR_RULES",
    "Golden",
    "fill",
    "fill_tokenizer",
    "load_golden",
    "pictures",
    "smooth_images",
    "vae_rules",
]

FOLDER = Path(__file__).parent / "data" / "golden"


@dataclass(frozen=True)
class Golden:
    """The JSON file's content and the tensors beside it (none where there is no such file)."""

    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names begin with the prefix, without it; float16 ones as the float32 they stand for."""
        found = {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in found.items()}


def load_golden(name: str) -> Golden:
    """Read one golden file by its name without ending."""
    arrays = FOLDER / f"{name}.safetensors"
    meta = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Golden(meta, load_file(arrays) if arrays.exists() else {})


def fill_tokenizer(model: nn.Module) -> str:
    """Give an image tokenizer the golden weights; return their sha256."""
    return fill(model, 2, vae_rules(-4, -1, -5))


def pictures(seed: int, batch: int, size: int) -> Tensor:
    """Smooth pictures (batch, 3, size, size) in [-1, 1]."""
    return torch.from_numpy(smooth_images(seed, batch, size, size))
