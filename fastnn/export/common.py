"""What all exports share: what a net must be, and how a file takes its place."""

import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fn
from fastnn._declare import instance

Array = np.ndarray[Any, Any]


def checked_parameters(net: Any) -> dict[str, Array]:
    """The parameters of a Sequential that can be exported.

    TypeError: `net` is none. ValueError: a Standardize layer has no statistics, or a parameter is not finite.
    """
    instance("net", net, fn.Sequential, "a fastnn.Sequential")
    net.predict(np.zeros((1, net.input_size), net.dtype))  # refuses a Standardize layer without statistics
    parameters: dict[str, Array] = net.parameters()
    for name, values in parameters.items():
        if not np.isfinite(values).all():
            raise ValueError(f"net has NaN or infinity among its parameters: {name}.")
    return parameters


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that another process sees the old one or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
