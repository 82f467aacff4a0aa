"""Scenes put together by program from OpenMoji's shapes: coloured things, counts and pairs, with what is held out.

What is in a scene, how it is drawn and what is said of it. Reading and packing records is the other rooms' work.
"""
