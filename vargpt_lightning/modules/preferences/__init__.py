"""Training on preferences: log-probabilities of answers now and under the reference, and losses made of the two.

What the pairs are and how they are read belongs in `data`, what a stage may be told of them in `recipe`.
"""
