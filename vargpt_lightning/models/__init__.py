"""The networks: one model of a language model, a vision tower, an image tokenizer and a visual decoder.

Torch alone: no Lightning, no files. Weights on the disk belong in `checkpoints`, training steps in `modules`.
"""
