"""Experiment files: the schema, the parser, and the checks that name a wrong key.

What a stage is belongs in `recipe`; what is done with an experiment belongs in `training`, `planning` and `sweep`.
"""
