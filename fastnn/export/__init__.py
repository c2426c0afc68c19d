"""Nets in other forms than fastnn's own: files that other programs run. Needs the public API alone."""

from .onnx import to_onnx

__all__ = ["to_onnx"]
