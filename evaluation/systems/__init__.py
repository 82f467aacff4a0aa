"""The systems under test: our models, transformers models, endpoints, and files of predictions.

What they are asked belongs in `evaluation.harness`.
"""
