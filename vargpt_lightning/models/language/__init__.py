"""The language model: our LLaMA and families of transformers, its cache, adapters and low-bit weights.

The tokenizer of its text belongs in `data.text`.
"""
