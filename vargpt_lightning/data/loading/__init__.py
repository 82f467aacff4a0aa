"""From records to batches: reader processes, collation, packed rows, cached features.

The order of records belongs in `data.mixing`.
"""
