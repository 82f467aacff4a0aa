"""Scoring rules that several benchmarks share: letters, yes or no, VQA accuracy, MMMU's answers.

A rule of one benchmark alone belongs in its own file in `evaluation.benchmarks`.
"""
