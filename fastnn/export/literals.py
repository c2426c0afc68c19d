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
        rounded = dtype.type(value)
    if not np.isfinite(rounded):
        raise ValueError(f"net cannot be exported: {value} does not fit {dtype}.")
    if rounded == 0 or 1e-3 <= abs(rounded) < 1e6:
        digits = np.format_float_positional(rounded, unique=True, trim="0")
    else:
        digits = np.format_float_scientific(rounded, unique=True, trim="0", exp_digits=1).replace("e+", "e")
    return digits + ("f" if dtype == np.float32 else "")


def array(name: str, values: Any, dtype: np.dtype[Any]) -> str:
    """A static const array of the values in memory order."""
    flat = np.asarray(values, dtype=dtype).reshape(-1)
    lines = [
        f"static const {real_type(dtype)} {name}[{flat.size}] = {{",
        *_filled(literal(value, dtype) for value in flat),
        "};",
    ]
    return "\n".join(lines) + "\n"


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
