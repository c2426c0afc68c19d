"""What is to be learned: samples to train, validate and test with, made from arrays or from a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnn as fn
from fastnn import tables
from fastnn.datasets import load_digits

from . import arrays
from .options import InputError

__all__ = ["Task", "read_table", "task_of_arrays", "task_of_table"]

Array = npt.NDArray[Any]
Part = tuple[Array, Array]

LEAST_ROWS = 10
VALIDATION_SHARE = 0.1  # of the rows that are not for testing
FINE = 1e-4  # a column that varies by less than this share of its size needs float64


@dataclass
class Task:
    """Targets are class numbers, or the values of a regression in their own unit."""

    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...] | None
    first: fn.layers.Layer  # of the net: what the features go through
    statistics: tuple[Array, Array] | None = None  # of that layer; None: it finds them
    dtype: str = "float32"
    encoder: tables.Encoder | None = None
    report: str = ""

    @property
    def outputs(self) -> int:
        return len(self.classes) if self.classes is not None else int(np.prod(self.train[1].shape[1:]))


# ---- arrays ----


def task_of_arrays(path: str) -> Task:
    """The bundled digits, or an .npz archive: every fifth sample tests, unless the archive says which."""
    parts: tuple[Array, Array, Array, Array]
    if path == "digits":
        train, test = load_digits()
        parts = (*train, *test)
    else:
        parts = arrays.read_parts(path)
    x, y, x_test, y_test = parts
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    classes = None
    if y.dtype.kind == "f":
        y, y_test = y.reshape(len(y), -1), y_test.reshape(len(y_test), -1)
    else:
        labels, numbers = np.unique(np.concatenate([y.ravel(), y_test.ravel()]), return_inverse=True)
        classes = tuple(map(str, labels.tolist()))
        if len(classes) == 1:
            raise InputError("y has 1 class; at least 2 are needed")
        y, y_test = numbers[: len(y)], numbers[len(y) :]
    first = fn.Scale(1 / max(1, int(x.max()))) if x.dtype == np.uint8 else fn.Standardize()
    x, y, x_validation, y_validation = arrays.hold_out(x, y, every=10)
    if len(x_validation) == 0:
        raise InputError(f"{len(x)} training samples are too few: every tenth one is held out for validation")
    return Task((x, y), (x_validation, y_validation), (x_test, y_test), classes, first)


# ---- tables ----


def read_table(path: str) -> Any:
    try:
        return tables.read(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def task_of_table(path: str, target_name: str, kind: str, test_share: float, seed: int) -> Task:
    """A table: rows for testing and validation are drawn, from each class its share."""
    frame = read_table(path)
    tables.require_columns(frame, [target_name])
    rows = int(frame[target_name].notna().sum())
    if rows < LEAST_ROWS:
        raise InputError(f"{path} has {rows} row(s) with a {target_name!r}; at least {LEAST_ROWS} are needed")
    target = tables.Target.find(frame, target_name, kind)
    rows, left_out = int(target.known.sum()), int((~target.known).sum())
    features = frame[target.known].drop(columns=target_name)

    random = np.random.default_rng(seed)
    tested = _draw(target, np.arange(rows), test_share, random)
    rest = np.setdiff1d(np.arange(rows), tested)
    validating = _draw(target, rest, VALIDATION_SHARE, random)
    training = np.setdiff1d(rest, validating)
    if not len(validating):
        left = f"--test-share {test_share:g} leaves {len(rest)} of {rows} rows"
        raise InputError(f"{left} to train and to validate with, too few: give a smaller share")

    columns, unused = tables.find_columns(features, rest)
    encoder = tables.Encoder(columns, target.name, target.classes)
    x = encoder.encode(features)
    y = target.values if target.classes is not None else target.values[:, np.newaxis]
    statistics = _statistics(x[training], columns)
    needs_float64 = any(map(_is_fine, *statistics)) or (target.classes is None and _is_fine(y.mean(), y.std()))
    dtype = "float64" if needs_float64 else "float32"
    counts = f"{len(training)} train, {len(validating)} validate, {len(tested)} test"
    lines = [
        f"{path}: {rows} rows: {counts}"
        + (f"; {left_out} row(s) without {target_name!r} left out" if left_out else ""),
        f"target {target_name!r}: " + describe_classes(target.classes),
        *describe_columns(columns),
        *(f"not used: {tables.short(name)!r} {reason}" for name, reason in unused.items()),
    ]
    train, validation, test = ((x[part], y[part]) for part in (training, validating, tested))
    return Task(train, validation, test, target.classes, fn.Standardize(), statistics, dtype, encoder, "\n".join(lines))


def _draw(target: tables.Target, rows: Array, share: float, random: np.random.Generator) -> Array:
    """This share of the rows, in their order: of every class its share, but never all of it."""
    if share == 0:
        return np.empty(0, dtype=np.intp)
    order = random.permutation(rows)
    labels = target.values if target.classes is not None else np.zeros(len(target.values))
    order = order[np.argsort(labels[order], kind="stable")]
    places = np.floor(share * np.arange(len(order) + 1) + 0.5)
    drawn = places[1:] > places[:-1]
    for label in np.setdiff1d(labels[order[drawn]], labels[order[~drawn]]):
        drawn[np.argmax(labels[order] == label)] = False
    return np.sort(order[drawn])


def _statistics(x: Array, columns: Sequence[tables.Column]) -> tuple[Array, Array]:
    """Mean and deviation of numbers and dates; 0 and 1 for categories, which stay as they are."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    fixed = np.concatenate([np.full(len(column.features), column.kind == "category") for column in columns])
    fixed |= scale <= 1e-12 * np.abs(mean)  # constant in the rows that train
    mean[fixed], scale[fixed] = 0, 1
    return mean, scale


def _is_fine(mean: float, scale: float) -> bool:
    """Whether float32 would lose what distinguishes the values, or the values."""
    return abs(scale) < FINE * abs(mean) or max(abs(mean), abs(scale)) > 1e30 or 0 < abs(scale) < 1e-30


def describe_classes(classes: Sequence[str] | None) -> str:
    if classes is None:
        return "regression"
    shown = ", ".join(map(tables.short, classes[:10])) + (", ..." if len(classes) > 10 else "")
    return f"classification, {len(classes)} classes ({shown})"


def describe_columns(columns: Sequence[tables.Column]) -> list[str]:
    names = [tables.short(column.name) for column in columns]
    wide = max(map(len, names))
    return [
        f"  {name:<{wide}}  {column.kind:<8}  {column.describe()}" for name, column in zip(names, columns, strict=True)
    ]
