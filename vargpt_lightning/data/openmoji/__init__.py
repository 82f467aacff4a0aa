"""OpenMoji as a corpus: pictures, names, colours, questions, and the split by families of near-duplicates.

Other corpora are packed from their files in `data.sources`.
"""
