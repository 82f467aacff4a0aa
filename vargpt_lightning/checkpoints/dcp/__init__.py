"""Checkpoints that all processes write together: their folders, and reading them without running what they hold.

Weights of one file belong in `checkpoints.lazy_tensors`.
"""
