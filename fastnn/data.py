"""The one place that checks what users pass as features, targets and weights, and that cuts epochs into batches."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from . import _core
from ._declare import Declaration, integer, number, warn
from .losses import Loss, OwnLoss

Array = np.ndarray[Any, Any]

_READABLE = frozenset(map(np.dtype, _core.feature_dtypes))
_CHUNK_ELEMENTS = 1 << 18  # rows are converted to float64 in pieces of 2 MiB, which caches hold


# ---- features ----


def features(x: Any, engine: _core.Engine, name: str = "x") -> Array:
    """`x` as a 2-D array that the engine reads as it is: any strides, a dtype of ``_core.feature_dtypes``, all finite.

    Nothing is copied where dtype and byte order suit; a foreign byte order becomes the native one, float16, long
    double and objects a copy of the net's dtype.
    """
    if x is None:
        raise ValueError(f"{name} must be an array of shape (n, {engine.input_size}), got None.")
    array = dense(x, name)
    if array.ndim == 0:
        raise ValueError(f"Expected 2D array, got scalar array instead: {name} = {array!r}.")
    if array.ndim == 1:
        raise ValueError(
            f"Expected 2D array, got 1D array instead: {name} has shape {array.shape}. Reshape your data either using "
            "array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains a single "
            "sample."
        )
    if array.ndim > 2:
        raise ValueError(
            f"Found array with dim {array.ndim}, while dim <= 2 is required: {name} has shape {array.shape}. "
            f"Flatten each sample with {name}.reshape(len({name}), -1)."
        )
    rows, columns = array.shape
    if rows == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={array.shape}) while a minimum of 1 is required: {name}."
        )
    if columns == 0:
        raise ValueError(f"0 feature(s) (shape={array.shape}) while a minimum of 1 is required: {name}.")
    if columns != engine.input_size:
        raise ValueError(
            f"{name} has {columns} features, but the net is expecting {engine.input_size} features as input."
        )
    array = _readable(array, engine.dtype, name)
    place = engine.find_nonfinite(array)
    if place is not None:
        row, column = place
        _raise_nonfinite(array[row, column], name, engine.dtype, f"row {row}, column {column}")
    return array


def dense(x: Any, name: str) -> Array:
    """`x` as an array, refusing what NumPy would silently misread."""
    if type(x) is np.ndarray:
        return x
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. "
            "Use '.toarray()' to convert to a dense array."
        )
    if isinstance(x, np.matrix):
        raise TypeError(f"np.matrix is not supported: {name}. Please convert to a numpy array with np.asarray.")
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError(
            f"{name} is a masked array with masked values, and the mask would be ignored. "
            "Fill it with .filled(value) or drop those rows."
        )
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _readable(array: Array, dtype: np.dtype[Any], name: str) -> Array:
    native = array.dtype.newbyteorder("=")
    if native in _READABLE:
        return array.astype(native, copy=False)
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return numeric(array, dtype, name)


def numeric(array: Array, dtype: np.dtype[Any], name: str) -> Array:
    """A C-contiguous copy of real numbers in `dtype`; what does not fit becomes infinite, for the caller to find."""
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}.")
    if array.dtype.kind not in "biufOSU":
        raise TypeError(f"{name} has dtype {array.dtype}; it must hold real numbers.")
    try:
        with np.errstate(over="ignore"):
            return array.astype(dtype, order="C")
    except ValueError:
        raise ValueError(f"{name}: could not convert string to float: {_first_word(array)!r}") from None
    except TypeError as error:
        raise TypeError(f"{name} must hold real numbers: {error}.") from None


def _first_word(array: Array) -> str:
    """The first value that is not a number, for the error message alone."""
    for value in array.flat:
        try:
            float(value)
        except ValueError:
            return str(value)
    return str(array.flat[0])


def _raise_nonfinite(value: Any, name: str, dtype: np.dtype[Any], place: str) -> NoReturn:
    if np.isnan(value):
        raise ValueError(f"Input {name} contains NaN, first at {place}. Impute missing values or drop these rows.")
    raise ValueError(
        f"Input {name} contains infinity or a value too large for dtype('{dtype}'), first at {place}: {float(value)!r}."
    )


def require_finite(converted: Array, original: Array, name: str) -> None:
    """ValueError naming the first element that is not finite after conversion."""
    finite = np.isfinite(converted)
    if finite.all():
        return
    place = tuple(int(i) for i in np.argwhere(~finite)[0])
    value = original.reshape(converted.shape)[place]
    _raise_nonfinite(value, name, converted.dtype, f"{name}[{', '.join(map(str, place))}]")


# ---- targets and weights ----


class Targets(Declaration):
    """Private copies of the targets as the core reads them, and the original for metrics and own losses.

    Attributes
    ----------
    y : ndarray
        Labels (n,), or values in the user's shape and dtype.
    labels : ndarray of int32, shape (n,), or None
    values : ndarray of the net's dtype, shape (n, outputs), or None
    """

    y: Array
    labels: Array | None = None
    values: Array | None = None

    def rows(self, rows: slice | Array) -> "Targets":
        labels, values = (part if part is None else part[rows] for part in (self.labels, self.values))
        return Targets(self.y[rows], labels, values)


def targets(y: Any, loss: Loss | OwnLoss, n: int, engine: _core.Engine, name: str = "y", x_name: str = "x") -> Targets:
    """`y` checked against the loss, the number of samples and the outputs of the net."""
    if y is None:
        raise ValueError(f"training requires {name} to be passed, but the target {name} is None.")
    array = dense(y, name)
    if array.ndim == 0:
        raise ValueError(f"{name} must have one entry per sample, got the scalar {array!r}.")
    if len(array) != n:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{n}, {len(array)}] ({x_name} and {name})."
        )
    if isinstance(loss, OwnLoss):
        return Targets(array)
    if loss.name == "cross_entropy":
        array = _unpack_column(array, name)
        if array.ndim == 1:
            return _labels(array, engine.output_size, name)
    return _values(array, loss, engine, name)


def _unpack_column(array: Array, name: str) -> Array:
    """(n,) from a column of labels (n, 1)."""
    if array.ndim != 2 or array.shape[1] != 1:
        return array
    warn(
        f"A column-vector {name} was passed when a 1d array was expected. Please change the shape of {name} to "
        "(n_samples,), for example using ravel()."
    )
    return array[:, 0]


def _labels(array: Array, outputs: int, name: str) -> Targets:
    if array.dtype.kind == "f":
        require_finite(array, array, name)
    if array.dtype.kind not in "biu":
        raise ValueError(
            f"Unknown label type: {name} has dtype {array.dtype}, but cross_entropy needs integer labels "
            f"0..{outputs - 1}, or rows of {outputs} probabilities. For whole numbers use {name}.astype(int), for "
            "continuous targets loss='mse'."
        )
    if array.min() < 0 or array.max() >= outputs:
        place = int(np.flatnonzero((array < 0) | (array >= outputs))[0])
        raise ValueError(
            f"{name}[{place}] = {array[place]}, but the output layer has {outputs} units (valid 0..{outputs - 1})."
        )
    labels = array.astype(np.int32, order="C")
    if labels.min() < 0 or labels.max() >= outputs:
        raise RuntimeError(f"{name} was changed by another thread while it was checked.")
    return Targets(labels, labels=labels)


def _values(array: Array, loss: Loss, engine: _core.Engine, name: str) -> Targets:
    outputs = engine.output_size
    values = array[:, np.newaxis] if array.ndim == 1 else array
    if values.ndim != 2 or values.shape[1] != outputs:
        labels = f", or {len(array)} integer labels" if loss.name == "cross_entropy" else ""
        raise ValueError(
            f"{name} has shape {array.shape}, but the net has {outputs} output(s): {loss.name} expects shape "
            f"({len(array)}, {outputs}){labels}."
        )
    values = numeric(values, engine.dtype, name)
    require_finite(values, array, name)
    low, high = {"cross_entropy": (0, np.inf), "binary_cross_entropy": (0, 1), "poisson": (0, np.inf)}.get(
        loss.name, (-np.inf, np.inf)
    )
    if values.min() < low or values.max() > high:
        row, column = (int(i) for i in np.argwhere((values < low) | (values > high))[0])
        place = f"{name}[{row}]" if array.ndim == 1 else f"{name}[{row}, {column}]"
        interval = f"in [{low}, {high}]" if np.isfinite(high) else f">= {low}"
        raise ValueError(f"{place} = {values[row, column]:g}, but {loss.name} needs values {interval}.")
    if loss.name == "cross_entropy":
        sums = values.sum(axis=1, dtype=np.float64)
        wrong = np.flatnonzero(np.abs(sums - 1) > 1e-3)
        if wrong.size:
            raise ValueError(
                f"{name}[{wrong[0]}] sums to {sums[wrong[0]]:g}, but rows of probabilities for cross_entropy must sum "
                "to 1."
            )
    return Targets(array, values=values)


def sample_weights(weights: Any, n: int, name: str = "sample_weight") -> Array | None:
    """One non-negative float64 weight per sample, or None."""
    if weights is None:
        return None
    if isinstance(weights, str):
        raise TypeError(
            f"{name} must be an array of one number >= 0 per sample, or None, got {weights!r}. For weights by class "
            "use class_weight."
        )
    array = dense(weights, name)
    if array.shape != (n,):
        raise ValueError(f"{name}.shape == {array.shape}, expected ({n},)!")
    converted = numeric(array, np.dtype(np.float64), name)
    require_finite(converted, array, name)
    if converted.min() < 0:
        place = int(np.flatnonzero(converted < 0)[0])
        raise ValueError(f"Negative values in data passed to `{name}`: {name}[{place}] = {converted[place]:g}.")
    if not converted.any():
        raise ValueError(f"`{name}` must contain at least one non-zero number.")
    return converted


def class_weights(class_weight: Any, data: Targets, outputs: int) -> Array | None:
    """A float64 weight per sample from a weight per class: a dict (missing classes count 1), or "balanced".

    "balanced" gives class c the weight n / (classes present * n_c), as scikit-learn does.
    """
    if class_weight is None:
        return None
    if data.labels is not None:
        labels, classes = data.labels, outputs
    elif data.values is not None and outputs == 1 and np.isin(data.values, (0, 1)).all():
        labels, classes = data.values[:, 0].astype(np.int32), 2
    else:
        raise ValueError("class_weight needs integer labels (or 0 and 1 for one output); use sample_weight otherwise.")
    per_class = np.ones(classes)
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(labels, minlength=classes)
        present = counts > 0
        per_class[present] = len(labels) / (present.sum() * counts[present])
    elif isinstance(class_weight, Mapping):
        for label, weight in class_weight.items():
            label = integer("a key of class_weight", label, 0, classes - 1)
            per_class[label] = number(f"class_weight[{label}]", weight, 0)
    else:
        raise TypeError(f"class_weight must be a dict label -> weight, 'balanced' or None, got {class_weight!r}.")
    return np.asarray(per_class[labels])


# ---- batches ----


def split_validation(n: int, fraction: float) -> int:
    """Number of leading rows that train; the last `fraction` of the rows validates."""
    fraction = number("validation_split", fraction, 0, 1, open_high=True)
    held_out = round(n * fraction)
    if fraction > 0 and (held_out == 0 or held_out == n):
        raise ValueError(
            "The validation set is too small. Increase 'validation_split' or the size of your dataset: "
            f"{fraction:g} of {n} samples leaves {held_out} for validation."
        )
    return n - held_out


def batch_starts(n: int, batch_size: int, join_single_row: bool) -> Array:
    """Boundaries of the batches, (n_batches + 1); `join_single_row`: a last batch of one row joins the one before."""
    starts = np.append(np.arange(0, n, batch_size, dtype=np.uint64), np.uint64(n))
    if join_single_row and len(starts) > 2 and starts[-1] - starts[-2] == 1:
        starts = np.delete(starts, -2)
    return starts


# ---- some of many rows ----


def spread(n: int, most: int) -> Array:
    """Indices of at most so many of n rows, evenly spread, the first and the last among them."""
    count = min(n, most)
    return np.arange(count) * (n - 1) // max(count - 1, 1)


# ---- identity ----


def crc(array: Array, before: int = 0) -> int:
    """CRC-32 of the elements in C order, after those that gave `before`."""
    return _core.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), before)


def crc_of_some_rows(x: Array, most: int = 1024) -> int:
    """CRC-32 of rows all over `x`, the first and the last among them."""
    chosen = spread(len(x), most)
    value = 0
    for rows in chunks(chosen[:, np.newaxis], x.shape[1]):
        value = crc(x[chosen[rows]], value)
    return value


# ---- statistics of columns ----


def chunks(x: Array, width: int = 1) -> Iterator[slice]:
    """Slices of rows of at most some MiB in float64, also where a row becomes `width` values; so a memory map is never
    held as a whole.
    """
    rows = max(1, _CHUNK_ELEMENTS // max(x.shape[1], width))
    return (slice(start, min(start + rows, len(x))) for start in range(0, len(x), rows))


class ColumnMoments:
    """Weighted mean and variance of columns in float64, merged chunk by chunk (Chan, Golub and LeVeque 1979)."""

    def __init__(self, columns: int) -> None:
        self.weight = 0.0
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        self._low = np.full(columns, np.inf)
        self._high = np.full(columns, -np.inf)

    def add(self, chunk: Array, weights: Array | None = None) -> None:
        """Merge rows; those of weight 0 do not count."""
        if weights is not None:
            chunk, weights = chunk[weights > 0], weights[weights > 0, np.newaxis]
        if not len(chunk):
            return
        rows = np.array(chunk, dtype=np.float64, order="C")  # a row-major copy: sums in one order for every layout
        weight = float(len(rows) if weights is None else weights.sum())
        mean = (rows if weights is None else rows * weights).sum(axis=0) / weight
        rows -= mean
        rows *= rows
        squares = (rows if weights is None else rows * weights).sum(axis=0)
        total = self.weight + weight
        difference = mean - self.mean
        self.mean += difference * (weight / total)
        self._squares += squares + difference**2 * (self.weight * weight / total)
        self.weight = total
        self._low = np.minimum(self._low, chunk.min(axis=0))
        self._high = np.maximum(self._high, chunk.max(axis=0))

    @property
    def variance(self) -> Array:
        """Biased; exactly 0 for a constant column, whatever the rounding of its mean."""
        return np.where(self._low == self._high, 0.0, self._squares / self.weight)
