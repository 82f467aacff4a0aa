"""The GPUs that a plan can be made for. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vargpt_lightning.utils.errors import UserError, nearest
from vargpt_lightning.utils.ranges import Range, check
from vargpt_lightning.utils.yaml_text import read_yaml

FILE = Path(__file__).with_name("gpus.yaml")
CONTEXT = 700_000_000
"""Bytes that CUDA's context and libraries take before the first tensor (ours: 0.5 to 0.8 GB are usual)."""
COMMUNICATION = 1_000_000_000
"""Bytes of NCCL's buffers with several ranks (ours: 0.5 to 1.5 GB are usual)."""
FRAGMENTS = 0.04
"""Share of what is allocated and freed in a step that the allocator cannot use (ours)."""
MOST_GPUS = 1_000_000
KERNEL_CACHE = 32 * 2**20
"""Bytes of cuBLAS's workspace on Hopper (torch's default there; 8 MiB elsewhere)."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: memory in bytes, dense bf16 FLOP/s, bytes/s, and where this is from.

    Attributes:
        bf16: whether it has such arithmetic; without it `flops` is of fp16.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    source: str
    bf16: bool = True


@dataclass(frozen=True)
class Cluster:
    """So many GPUs of a kind."""

    count: int
    gpu: Gpu
    per_node: int = 8


def catalogue(file: Path = FILE) -> dict[str, Gpu]:
    """Return the known GPUs by name.

    Raises:
        UserError: the file cannot be read or is no such catalogue; an entry lacks a figure, or it is none above 0.
    """
    found = {}
    for name, entry in read_yaml(file, "catalogue").items():
        for key in ("memory", "tflops", "bandwidth", "source"):
            if not isinstance(entry, dict) or key not in entry:
                raise UserError(f"{file}: {name}.{key} is missing; expected memory, tflops, bandwidth and source")
            if key != "source":
                check(entry[key], Annotated[float, Range(0, 10**9, above=True)], f"{file}: {name}.{key}")
        figures = (entry["memory"] * 1e9, entry["tflops"] * 1e12, entry["bandwidth"] * 1e9)
        found[name] = Gpu(name, *figures, entry["source"], bool(entry.get("bf16", True)))
    return found


def flops_of(device: str) -> float | None:
    """Return the dense bf16 FLOP/s of the GPU that a driver calls so, None for one that is not known or has no bf16.

    All parts of a GPU's name but its memory are words of the driver's; the one with the longest parts is taken.
    """
    fitting = []
    for gpu in catalogue().values():
        words = gpu.name.upper().split("-")[:-1]
        if gpu.bf16 and all(re.search(_pattern(word), device.upper()) for word in words):
            fitting.append((sum(map(len, words)), gpu.flops))
    return max(fitting)[1] if fitting else None


def _pattern(word: str) -> str:
    """A word of a GPU's name as drivers write it: RTX3090 is RTX 3090; A10 is no part of A100."""
    return r"(?<![A-Z0-9])" + r"\s*".join(re.findall(r"[A-Z]+|[0-9]+", word)) + r"(?![A-Z0-9])"


def parse_cluster(text: str, known: dict[str, Gpu] | None = None) -> Cluster:
    """Read such as 8xH100-80GB, H100 where one kind is called so, or a part of one kind's name.

    Raises:
        UserError: the text is no number and GPU, or names none or several that are known.
    """
    known = catalogue() if known is None else known
    match = re.fullmatch(r"(?:([0-9]+)\s*x\s*)?(.+)", text.strip(), re.IGNORECASE)
    there = ", ".join(known)
    if match and match[1] and (len(match[1]) > 9 or not 1 <= int(match[1]) <= MOST_GPUS):
        count = match[1] if len(match[1]) <= 30 else f"{match[1][:30]}..."
        raise UserError(f"--gpus: {count} GPUs; expected a whole number from 1 to {MOST_GPUS:,}")
    if not match:
        raise UserError(f"--gpus {text!r}; expected such as 8xH100-80GB; there are {there}")
    name = match[2].strip().lower()
    found = [gpu for key, gpu in known.items() if key.lower() == name]
    found = found or [gpu for key, gpu in known.items() if key.lower().rpartition("-")[0] == name]
    found = found or [gpu for key, gpu in known.items() if name in key.lower()]
    if len(found) != 1:
        several = [gpu.name for gpu in found]
        which = f"is several of the known GPUs ({', '.join(several)})" if found else "is none of the known GPUs"
        own = "one that is not there can be described in a file: --catalogue FILE"
        short = {key.rpartition("-")[0]: key for key in known}
        close = nearest(match[2], [*known, *short]) if not found else None
        near = f"; did you mean '{short.get(close, close)}'?" if close else ""
        raise UserError(f"--gpus: {match[2]!r} {which}: {there}; {own}{near}")
    return Cluster(int(match[1] or 1), found[0])
