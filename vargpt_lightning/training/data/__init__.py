"""A run's data made ready for its stages: corpora, caches, orders of records, and what is sampled of them.

How one corpus is read and batched belongs in `data`, the order of stages in `training`.
"""
