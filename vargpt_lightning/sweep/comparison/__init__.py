"""A sweep's cells beside one another: differences to one of them, and which of them none beats in cost and gain.

Means over seeds and their table are `sweep.table`'s; this reads what single drawings of the trials score.
"""
