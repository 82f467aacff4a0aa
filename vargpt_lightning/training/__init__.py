"""The training engine: stages one after another, their data, trainers, callbacks, resuming and reuse.

What one step computes belongs in `modules`, what happens at its edges in `callbacks`, and arguments in `commands`.
"""
