"""Instruction data written from captions: by templates, or by a language model behind a chat endpoint.

Captions are read in `data.sources`; packing what was written belongs in `data.packing`.
"""
