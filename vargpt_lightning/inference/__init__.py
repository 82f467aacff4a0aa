"""The model as an assistant: loaded from a run, a folder or the hub, asked, and answering with text and pictures.

How tokens and codes are chosen belongs in `models.generation`, serving many clients in `serving`.
"""
