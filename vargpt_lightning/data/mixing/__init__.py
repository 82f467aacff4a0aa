"""Which records come in which order: mixtures, schedules, batches by length, all functions of seed and step.

Reading and collating them belongs in `data.loading`.
"""
