"""Nets in other forms: `to_c` writes a predictor in C99 that needs nothing else."""

from .c import to_c

__all__ = ["to_c"]
