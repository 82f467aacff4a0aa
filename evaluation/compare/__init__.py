"""Finished evaluations against each other: `vargpt compare`. Imports no torch.

What two lists of scores say of a difference is in `base.paired_tests`; plots for notebooks are in `analysis`.
"""
