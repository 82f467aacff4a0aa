"""Data: from the files of published corpora to the batches of a stage.

What a stage trains on belongs in `recipe`, its loaders in `training`, questions of benchmarks in `evaluation`.
"""
