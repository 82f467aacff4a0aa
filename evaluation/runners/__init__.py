"""Our systems under other people's runners: a module for each package, imported by that package's user alone.

What a system is belongs in `evaluation.systems`; nothing else here imports these modules or their packages.
"""
