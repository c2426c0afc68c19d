"""Samples from .npz archives."""

import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from .options import InputError

Array = npt.NDArray[Any]

__all__ = ["hold_out", "read_features", "read_pair", "read_parts"]


def hold_out(x: Array, y: Array, every: int) -> tuple[Array, Array, Array, Array]:
    """Split off each ``every``-th sample: fair also where the samples are sorted by class."""
    held = np.arange(len(x)) % every == every - 1
    return x[~held], y[~held], x[held], y[held]


def read_arrays(path: str) -> dict[str, Array]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not an .npz archive")
        with archive:
            return {name.lower(): archive[name] for name in archive.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not an .npz archive of plain arrays") from error


def read_parts(path: str) -> tuple[Array, Array, Array, Array]:
    """x and y to train with, x and y to test with."""
    arrays = read_arrays(path)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        parts = (arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])
    elif {"x", "y"} <= arrays.keys():
        _check(path, arrays["x"], arrays["y"])
        parts = hold_out(arrays["x"], arrays["y"], every=5)
    else:
        raise InputError(f"{path} needs arrays x and y, or x_train, y_train, x_test and y_test; it has {list(arrays)}")
    for x, y in (parts[:2], parts[2:]):
        _check(path, x, y)
    for name, trained, tested in (("x_test", parts[0], parts[2]), ("y_test", parts[1], parts[3])):
        if trained.shape[1:] != tested.shape[1:]:
            raise InputError(f"{path}: {name} {tested.shape} must have the columns of training, {trained.shape[1:]}")
    return parts


def read_features(path: str) -> Array:
    """x_test or x, a row per sample."""
    return _flat(_first(path, read_arrays(path), "x"))


def read_pair(path: str) -> tuple[Array, Array]:
    """x_test and y_test, or x and y."""
    arrays = read_arrays(path)
    x, y = _first(path, arrays, "x"), _first(path, arrays, "y")
    _check(path, x, y)
    return _flat(x), y


def _first(path: str, arrays: dict[str, Array], name: str) -> Array:
    for key in (f"{name}_test", name):
        if key in arrays:
            return arrays[key]
    raise InputError(f"{path} needs an array {name}_test or {name}; it has {list(arrays)}")


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1) if x.ndim > 2 and x.size else x


def _check(path: str, x: Array, y: Array) -> None:
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or x.size == 0:
        raise InputError(f"{path}: x {x.shape} and y {y.shape} must have one row per sample each")
    if x.dtype.kind not in "biuf" or y.dtype.kind not in "biufU":
        raise InputError(f"{path}: x ({x.dtype}) and y ({y.dtype}) must be numbers; y may be strings")
    if y.dtype.kind != "f" and y.size != len(y):
        raise InputError(f"{path}: y {y.shape} of {y.dtype} must be one label per sample")
