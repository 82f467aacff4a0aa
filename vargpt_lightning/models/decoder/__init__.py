"""The visual decoder: a transformer that predicts the codes of the next scale, and how they are sampled.

The loop over scales belongs in `models.generation`.
"""
