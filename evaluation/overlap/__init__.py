"""Evaluation records that a model was trained on, found in packed shards: `vargpt data overlap`. Imports no torch.

The evaluation records are held in memory as hashes, the shards are read one after the other.
"""
