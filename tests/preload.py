"""What forks need sooner or later, imported once before the first of them."""

from __future__ import annotations

import accelerate  # noqa: F401
import omegaconf  # noqa: F401
from PIL import Image

import vargpt_lightning.data.corpora
import vargpt_lightning.distributed.strategies
import vargpt_lightning.experiment.parser
import vargpt_lightning.models.vision.networks.clip
import vargpt_lightning.training.final_evaluation
import vargpt_lightning.training.runner  # noqa: F401
from vargpt_lightning.models.language.quantization import quiet_bitsandbytes

Image.init()
with quiet_bitsandbytes():
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
