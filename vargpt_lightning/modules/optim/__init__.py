"""Optimizers, and which of a model's parameters each of them gets.

Schedules belong in `recipe`, freezing in the stage scheduler.
"""
