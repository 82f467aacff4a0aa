"""Weights on the disk: layouts of published checkpoints, opening, converting, writing, and first weights.

What is computed with the weights belongs in `models`; when a checkpoint is written is up to `callbacks`.
"""
