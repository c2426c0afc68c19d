"""Nets in other forms: `to_c` writes a predictor in C99 that needs nothing else, `to_onnx` a graph."""

from .c import to_c
from .onnx import to_onnx

__all__ = ["to_c", "to_onnx"]
