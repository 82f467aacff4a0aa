"""Asking a benchmark's questions, keeping the outputs, scoring them, and resuming.

The benchmarks belong in `evaluation.benchmarks`, reports in `evaluation.reports`.
"""
