"""Pairs of preferences: several drawings of each prompt, scored by a judge, the better beside the worse.

What scores belongs in `systems.scorers`, what draws in `images.picture_runs`; training on pairs is `modules`' work.
"""
