"""LightningModules: what one step of a stage computes, logs and clips.

What is trained and when a fit saves or stops belongs in `callbacks`; how the model is spread in `distributed`.
"""
