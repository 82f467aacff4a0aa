"""The parts of a VARGPT by the names that recipes and checkpoints use. Imports no torch."""

from __future__ import annotations

SUBMODULES: dict[str, tuple[str, ...]] = {
    "language_model": ("language_model",),
    "vision_tower": ("vision_tower",),
    "vision_projector": ("vision_projector",),
    "image_tokenizer": ("image_tokenizer",),
    "visual_decoder": ("visual_decoder",),
    "generation_projector_in": ("generation_projector_in",),
    "generation_projector_out": ("generation_projector_out",),
    "start_embedding": ("start_embedding",),
    "generation_projectors": ("generation_projector_in", "generation_projector_out"),
}
"""The names that stages may speak of, and the attributes of `VARGPT` that each stands for."""

OPTIONAL = ("vision_tower", "vision_projector", "start_embedding")
"""Those that a model need not have."""
