"""The evaluation that ends a run: its questions and drawings, scored.

Public benchmarks belong in `evaluation.harness`, the page in `evaluation.reports`.
"""
