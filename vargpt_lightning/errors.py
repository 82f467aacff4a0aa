"""The error that means: something a person can put right."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in a key, a path, a picture, a shard or a checkpoint.

    Its text names the thing, the value and what was expected; the command line prints the text alone and exits with
    code 2.
    """
