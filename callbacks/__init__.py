"""Part of vargpt_lightning: import it as `vargpt_lightning.callbacks`.

Lightning callbacks: what happens around the steps of a fit.

What a step computes belongs in `modules`, which callbacks a run has in `training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ == "callbacks":
    raise ImportError("import vargpt_lightning.callbacks instead of callbacks")

from vargpt_lightning.utils.lazy import lazily

if TYPE_CHECKING:
    from vargpt_lightning.callbacks.batch_rng import BatchRng as BatchRng
    from vargpt_lightning.callbacks.checkpoint_io import LastCheckpoint as LastCheckpoint
    from vargpt_lightning.callbacks.ema import EMA as EMA
    from vargpt_lightning.callbacks.graceful_stop import GracefulStop as GracefulStop
    from vargpt_lightning.callbacks.progress import StageProgress as StageProgress
    from vargpt_lightning.callbacks.samples import SampleGrids as SampleGrids
    from vargpt_lightning.callbacks.stage_scheduler import StageScheduler as StageScheduler
    from vargpt_lightning.callbacks.throughput import Throughput as Throughput

_LAZY = {
    "BatchRng": "batch_rng",
    "EMA": "ema",
    "GracefulStop": "graceful_stop",
    "LastCheckpoint": "checkpoint_io",
    "SampleGrids": "samples",
    "StageProgress": "progress",
    "StageScheduler": "stage_scheduler",
    "Throughput": "throughput",
}


__getattr__ = lazily(__name__, _LAZY)
