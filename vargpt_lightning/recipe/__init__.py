"""What a stage is: its objective, data, optimizer, schedule, adapters and sharding, as plain dataclasses.

Nothing here imports torch or Lightning; files and options are read in `experiment`.
"""
