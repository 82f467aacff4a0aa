"""A server: the web page, OpenAI's API, and the engine that answers many clients in batches.

One conversation without a server belongs in `inference`.
"""
