"""Measures of drawings: FID, KID, Inception score, precision and recall, CLIP score, and their sets of pictures.

Measures of a run's own drawings against its data belong in `evaluation.run`.
"""
