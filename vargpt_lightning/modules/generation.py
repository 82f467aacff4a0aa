"""Training to draw: the image loss alone."""

from __future__ import annotations

from vargpt_lightning.modules.unified import UnifiedModule


class GenerationModule(UnifiedModule):
    """Image cross-entropy on visual tokens; the text around a picture is its condition and is not trained."""

    text = False
