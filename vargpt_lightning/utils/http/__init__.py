"""JSON over HTTP with retries, and a chat endpoint that speaks OpenAI's protocol.

What is asked and what is done with the answers belongs to the callers.
"""
