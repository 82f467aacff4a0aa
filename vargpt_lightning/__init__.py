"""One toolkit for the whole life of a VARGPT-style model: data, training, sampling, evaluation.

>>> import vargpt_lightning as vl
>>> model = vl.load("runs/openmoji")  # doctest: +SKIP

What stands here is the public API (docs/python.md); each name is imported when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.lazy import lazily

if TYPE_CHECKING:
    from vargpt_lightning.callbacks.stage_scheduler import StageScheduler as StageScheduler
    from vargpt_lightning.checkpoints.hub import VARGPT as VARGPT
    from vargpt_lightning.experiment.parser import load_experiment as load_experiment
    from vargpt_lightning.inference.assistant import Assistant as Assistant
    from vargpt_lightning.inference.load import load as load
    from vargpt_lightning.models.core.config import VARGPTConfig as VARGPTConfig
    from vargpt_lightning.modules.generation import GenerationModule as GenerationModule
    from vargpt_lightning.modules.tokenizer import TokenizerModule as TokenizerModule
    from vargpt_lightning.modules.understanding import UnderstandingModule as UnderstandingModule
    from vargpt_lightning.modules.unified import UnifiedModule as UnifiedModule
    from vargpt_lightning.modules.vargpt_module import VARGPTModule as VARGPTModule
    from vargpt_lightning.recipe.stage import Stage as Stage
    from vargpt_lightning.results import load_runs as load_runs
    from vargpt_lightning.training.data.datamodule import VARGPTDataModule as VARGPTDataModule
    from vargpt_lightning.training.fit_stages import fit_stages as fit_stages

__version__ = "0.1.0"

_LAZY = {
    "Assistant": "inference.assistant",
    "GenerationModule": "modules.generation",
    "Stage": "recipe.stage",
    "StageScheduler": "callbacks.stage_scheduler",
    "TokenizerModule": "modules.tokenizer",
    "UnderstandingModule": "modules.understanding",
    "UnifiedModule": "modules.unified",
    "VARGPT": "checkpoints.hub",
    "VARGPTConfig": "models.core.config",
    "VARGPTDataModule": "training.data.datamodule",
    "VARGPTModule": "modules.vargpt_module",
    "fit_stages": "training.fit_stages",
    "load": "inference.load",
    "load_experiment": "experiment.parser",
    "load_runs": "results",
}


__getattr__ = lazily(__name__, _LAZY)


def __dir__() -> list[str]:
    """Name what can be asked for: the public API alone."""
    return sorted([*_LAZY, "__doc__", "__version__"])


class _Moved:
    """Finds modules by their names of earlier versions; it is asked last, for what is not there."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(f"{__name__}."):
            return None
        from vargpt_lightning.moved import spec_of

        return spec_of(name)


sys.meta_path.append(_Moved)
