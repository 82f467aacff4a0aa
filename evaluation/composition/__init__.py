"""The judge of scenes: what a picture shows, found without knowing what was asked for, and figures made of that.

How scenes are made and worded is `data.scenes`' work; asking for drawings is `evaluation.run`'s.
"""
