"""How near plans are to real steps: peaks against torch's memory profiler, FLOPs against torch's flop counter.

python -m tests.benchmarks.bench_plan [--million 20] [--stages pretrain understanding generation]
Each row trains a model of about so many parameters for three steps with Lightning on the CPU, in a process of its own.
"""

from __future__ import annotations

import argparse
import logging
import warnings

from rich.console import Console
from rich.table import Table

from tests.planning.measuring import LOW_BITS, ROWS, measure_aside, model_config, stage_of
from vargpt_lightning.planning.steps import build_empty, trace_step
from vargpt_lightning.recipe.sharding import ShardingConfig

SIZES = {
    20: {"width": 256, "layers": 6, "depth": 6, "vocabulary": 4000},
    80: {"width": 512, "layers": 8, "depth": 8, "vocabulary": 8000},
    300: {"width": 1024, "layers": 10, "depth": 8, "vocabulary": 8000},
}
IN_FEW_BITS = "-4bit"
"""Beside the name of the understanding stage: adapters, and frozen weights in 4 and 8 bits."""
MODES = ("none", "full", "selective", "every_2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", type=int, choices=SIZES, nargs="*", default=list(SIZES))
    parser.add_argument("--stages", nargs="*", default=[*ROWS, f"understanding{IN_FEW_BITS}"])
    parser.add_argument("--modes", nargs="*", default=list(MODES))
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = Table("parameters", "stage", "checkpointing", "measured MB", "predicted MB", "off by", "FLOPs off by")
    for million in options.million:
        config = model_config(**SIZES[million])  # type: ignore[arg-type]
        for name in options.stages:
            for mode in options.modes:
                row = _row(config, name, mode, options.batch)
                print(*row, flush=True)
                table.add_row(*row)
    Console().print(table)


def _row(config: object, name: str, mode: str, batch: int) -> list[str]:
    model = build_empty(config)  # type: ignore[arg-type]
    count = sum(each.numel() for each in model.parameters())
    stage = stage_of(name.removesuffix(IN_FEW_BITS), **(LOW_BITS if name.endswith(IN_FEW_BITS) else {}))
    sharding, row = ShardingConfig(checkpointing=mode), ROWS[stage.name]
    measured = measure_aside(config, stage, row, batch, sharding)  # type: ignore[arg-type]
    trace = trace_step(model, stage, row, batch, sharding, "cpu")
    standing = sum(each.untyped_storage().nbytes() for each in [*model.parameters(), *model.buffers()])
    predicted = standing + trace.peak
    return [
        f"{count / 1e6:.0f} M", name, mode, f"{measured.peak / 1e6:.1f}", f"{predicted / 1e6:.1f}",
        f"{predicted / measured.peak - 1:+.2%}", f"{trace.flops / measured.flops - 1:+.2%}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
