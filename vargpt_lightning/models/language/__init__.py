"""The language model: LLaMA through transformers, its cache, adapters and low-bit weights.

The tokenizer of its text belongs in `data.text`.
"""
