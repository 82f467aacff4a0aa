"""One toolkit for the whole life of a VARGPT-style model: data, training, sampling, evaluation."""

__version__ = "0.1.0"
