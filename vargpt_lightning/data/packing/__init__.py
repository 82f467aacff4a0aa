"""Packing a corpus into shards: the job, its parts, its state on the disk, and checks.

The format of shards belongs in `data.shards`, the corpora's own formats in `data.sources`.
"""
