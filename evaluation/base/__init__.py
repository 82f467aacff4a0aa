"""What all evaluation shares: protocols of models and benchmarks, files, sample grids, exact match, headline figures.

Nothing here knows a benchmark, a system or a report.
"""
