"""Pictures: decoding, resizing, fitting to a size, and passing them between processes.

Where pictures are found belongs in `data.sources`.
"""
