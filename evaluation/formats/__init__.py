"""How benchmarks' data are stored: parquet mirrors, the authors' own files, the hub.

What the fields mean belongs in `evaluation.benchmarks`.
"""
