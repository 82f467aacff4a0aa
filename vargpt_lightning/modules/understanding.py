"""Training to answer questions: the text loss alone."""

from __future__ import annotations

from vargpt_lightning.modules.unified import UnifiedModule


class UnderstandingModule(UnifiedModule):
    """Text cross-entropy on answers; what the model would draw is not trained."""

    image = False
