"""Plots and sheets for notebooks: comparisons of runs, errors, attention.

The pages that a command writes belong in `evaluation.reports`.
"""
