"""Training over several processes: strategies, sharding, whole tensors of sharded ones, and the process group.

One process's step belongs in `modules`; checkpoints of sharded weights belong in `checkpoints`.
"""
