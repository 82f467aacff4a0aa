"""HTML and Markdown reports, their tables and plots.

Everything here reads files that evaluation has written; nothing is measured.
"""
