"""Packed records: the format of shards, their index, and reading them.

Writing shards from foreign files belongs in `data.packing`.
"""
