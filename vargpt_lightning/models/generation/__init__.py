"""Answers word by word and drawings scale by scale, and the attention between them.

One forward pass belongs in `models.vargpt`.
"""
