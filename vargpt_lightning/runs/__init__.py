"""Run folders on the disk: their files, locks, provenance, and tables over many runs.

Reading results needs no torch; how a run is trained belongs in `training`, how it is reported in `evaluation.reports`.
"""
