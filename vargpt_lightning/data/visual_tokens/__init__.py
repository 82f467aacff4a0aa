"""Visual tokens stored beside a corpus: their format, and the job that makes them.

The tokenizer itself belongs in `models.tokenizer`.
"""
