"""Numbers and arrays as C text: the shortest decimals that give the same number, whatever the locale."""

from collections.abc import Iterable
from typing import Any

import numpy as np

LINE_LENGTH = 120


def real_type(dtype: np.dtype[Any]) -> str:
    return "float" if dtype == np.float32 else "double"


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A number as a C constant of the element type, or ValueError where it is infinite there."""
    with np.errstate(over="ignore"):
        rounded = np.array([value]).astype(dtype)
    return _literals(rounded)[0]


def array(name: str, values: Any, dtype: np.dtype[Any]) -> str:
    """A static const array of the values in memory order."""
    flat = np.asarray(values, dtype=dtype).reshape(-1)
    lines = [f"static const {real_type(dtype)} {name}[{flat.size}] = {{", *_filled(_literals(flat)), "};"]
    return "\n".join(lines) + "\n"


def _literals(values: np.ndarray[Any, Any]) -> list[str]:
    if not np.isfinite(values).all():
        raise ValueError(f"net has numbers that {values.dtype} cannot hold: it cannot be exported.")
    suffix = "f" if values.dtype == np.float32 else ""
    with np.printoptions(legacy=False):  # the user's may round
        return [str(value) + suffix for value in values]


def _filled(words: Iterable[str]) -> list[str]:
    """Comma-separated words in indented lines."""
    lines = []
    line = "   "
    for word in words:
        if len(line) + len(word) + 2 > LINE_LENGTH:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return [*lines, line]
