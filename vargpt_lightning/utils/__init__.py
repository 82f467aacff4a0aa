"""Small tools that know nothing of this project's subject: files, errors, names, ranges, signals.

Nothing here imports another room of the package; what knows a run, a model or a record belongs elsewhere.
"""
