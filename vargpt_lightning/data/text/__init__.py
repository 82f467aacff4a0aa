"""Conversations as text: the chat template and the text tokenizer.

Batches of tokens belong in `data.loading`.
"""
