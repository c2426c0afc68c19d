"""Lists of strings as a model file keeps them: all bytes end to end, and where each begins (docs/model-file.md)."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pack(name: str, strings: Iterable[str]) -> dict[str, Array]:
    """The attachments ``name.utf8`` and ``name.offsets``; the first is missing where all strings are empty."""
    encoded = [string.encode() for string in strings]
    packed = {f"{name}.offsets": np.cumsum([0, *map(len, encoded)], dtype=np.int64)}
    joined = b"".join(encoded)
    return {f"{name}.utf8": np.frombuffer(joined, np.uint8), **packed} if joined else packed


def unpack(name: str, attachments: Mapping[str, Array]) -> list[str] | None:
    """The strings, None where there are no attachments of that name."""
    offsets = attachments.get(f"{name}.offsets")
    if offsets is None:
        return None
    utf8 = attachments.get(f"{name}.utf8")
    text = b"" if utf8 is None else utf8.tobytes()
    return [text[begin:end].decode() for begin, end in pairwise(offsets.tolist())]
