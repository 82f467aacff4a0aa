"""Instruction data written from captions: by templates, or by a language model behind a chat endpoint."""
