"""Pages about packed data: what they are made of, and records as a model will see them.

Figures of runs and benchmarks belong in `reports`, the numbers shown here in `data.packing`.
"""
