"""A system asked the questions of public benchmarks, scored, and reported.

Several processes share the questions when torchrun starts the command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.distributed.torchrun import own_device, shared_processes
from vargpt_lightning.evaluation.base.benchmark import Benchmark
from vargpt_lightning.evaluation.run.benchmark_results import show
from vargpt_lightning.utils.progress import working

if TYPE_CHECKING:  # refusals must not wait for torch
    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings


def run_benchmarks(
    model: str,
    modules: Sequence[Benchmark],
    data: Mapping[str, Path],
    out: Path,
    settings: BenchmarkSettings,
    options: Mapping[str, Any],
    replace: bool = False,
) -> None:
    """Ask, score, print the figures, and write the report.

    Args:
        model: what `open_system` opens.
        data: where the data of each benchmark are.
        options: of the system, such as its device; without one each of several processes takes a GPU of its own.
        replace: write over another system's results in `out`.

    Raises:
        UserError: scoring was refused; after everything else is shown.
    """
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress
    from vargpt_lightning.evaluation.harness.run import ScoringError, asked_of, run_benchmark
    from vargpt_lightning.evaluation.harness.select import check_free, describe
    from vargpt_lightning.evaluation.systems.open import open_system
    from vargpt_lightning.utils.signals import ended_by_signals

    results: list[Mapping[str, Any]] = []
    refused: list[str] = []
    with ended_by_signals(), shared_processes() as processes:
        own = {"device": own_device()} if processes.world > 1 and "device" not in options else {}
        with working(f"loading {model}"):
            system = open_system(model, **{**own, **options})
        more: dict[str, Any] = {"processes": processes, "facts": describe(system), "replace_others": replace}
        for module in [] if replace else modules:  # all of them before the first is asked, for hours
            check_free(out / module.NAME, asked_of(module, settings, more["facts"]))
        with benchmark_progress(quiet=not processes.first) as progress:
            for module in modules:
                place = data[module.NAME]
                try:
                    results += run_benchmark(system, module, place, out, settings, progress=progress, **more).values()
                except ScoringError as error:  # told at the end: a night's other benchmarks need not wait for it
                    refused.append(str(error))
    if processes.first:
        show(results, out, data, refused)
