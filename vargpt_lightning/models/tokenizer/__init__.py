"""The image tokenizer: a multi-scale VQ-VAE and its codebook.

Visual tokens that are stored with data belong in `data.visual_tokens`.
"""
