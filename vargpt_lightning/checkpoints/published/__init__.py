"""Published checkpoints: names of their weights, sizes told by shapes, and the small files beside them.

Opening and writing them belongs in `checkpoints`.
"""
