"""Metrics: functions of (y_true, y_pred), unweighted means over the samples.

`y_true` comes as it was given to `fit`: labels (n,) or values. `y_pred` (n, outputs) holds probabilities for the
cross-entropies, rates for Poisson, else the outputs of the net. Any function f(y_true, y_pred) -> float is a metric.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ._declare import Declaration, choice, integer
from .losses import BinaryCrossEntropy, Loss, OwnLoss

__all__ = ["TopKAccuracy", "accuracy", "auc", "binary_accuracy", "f1", "mae", "mse", "r2", "rmse"]

Array = np.ndarray[Any, Any]
Metric = Callable[[Array, Array], float]


def _true_classes(y_true: Array) -> Array:
    """Labels from labels, a column of them, or one-hot rows."""
    if y_true.ndim == 2:
        return y_true[:, 0] if y_true.shape[1] == 1 else np.argmax(y_true, axis=1)
    return y_true


def _predicted_classes(y_pred: Array) -> Array:
    return y_pred[:, 0] > 0.5 if y_pred.shape[1] == 1 else np.argmax(y_pred, axis=1)


def _values(y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Both in float64 and of the same shape (n, outputs)."""
    return np.asarray(y_true, dtype=np.float64).reshape(y_pred.shape), np.asarray(y_pred, dtype=np.float64)


def accuracy(y_true: Array, y_pred: Array) -> float:
    """Share of samples whose most probable class is the true one; one output: class 1 above 0.5."""
    return float(np.mean(_true_classes(y_true) == _predicted_classes(y_pred)))


def binary_accuracy(y_true: Array, y_pred: Array) -> float:
    """Share of outputs on the right side of 0.5; what "accuracy" means with binary cross-entropy."""
    return float(np.mean((np.asarray(y_true).reshape(y_pred.shape) > 0.5) == (y_pred > 0.5)))


class TopKAccuracy(Declaration):
    """Share of samples whose true class is among the k most probable; by name "top_k_accuracy" with a number for k."""

    k: int

    def __post_init__(self) -> None:
        self._set(k=integer("k", self.k, 1))

    @property
    def __name__(self) -> str:
        return f"top_{self.k}_accuracy"

    def __call__(self, y_true: Array, y_pred: Array) -> float:
        true = _true_classes(y_true).astype(np.intp)
        more_probable = (y_pred > y_pred[np.arange(len(true)), true][:, np.newaxis]).sum(axis=1)
        return float(np.mean(more_probable < self.k))


def f1(y_true: Array, y_pred: Array) -> float:
    """Unweighted mean over the classes of 2 tp / (2 tp + fp + fn), for the classes that occur in either.

    With several outputs under binary cross-entropy (rows of 0 and 1 that may hold several ones) each output is a class
    of its own.
    """
    if y_true.ndim == 2 and y_true.shape[1] > 1 and np.any(np.count_nonzero(y_true, axis=1) != 1):
        true, predicted = y_true > 0.5, y_pred > 0.5
        hits, sizes = (true & predicted).sum(axis=0), true.sum(axis=0) + predicted.sum(axis=0)
        return float(np.mean(2 * hits / np.maximum(sizes, 1)))
    true, predicted = _true_classes(y_true).astype(np.intp), _predicted_classes(y_pred).astype(np.intp)
    classes = int(max(true.max(), predicted.max())) + 1
    hits = np.bincount(true[true == predicted], minlength=classes)
    sizes = np.bincount(true, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.mean(2 * hits[sizes > 0] / sizes[sizes > 0]))


def auc(y_true: Array, y_pred: Array) -> float:
    """Area under the ROC curve of two classes: the share of (1, 0) pairs in the right order, ties counted half.

    NaN where only one class occurs.
    """
    if y_pred.shape[1] > 2:
        raise ValueError(f"auc is for two classes; the net has {y_pred.shape[1]} outputs.")
    positive = _true_classes(np.asarray(y_true)) > 0.5
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if ones == 0 or zeros == 0:
        return float("nan")
    _, inverse, counts = np.unique(y_pred[:, -1], return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # ties share the mean of their ranks, counted from 1
    return float((mean_rank[inverse][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def mse(y_true: Array, y_pred: Array) -> float:
    """Mean of (y_true - y_pred)**2 over samples and outputs."""
    true, predicted = _values(y_true, y_pred)
    return float(np.mean((true - predicted) ** 2))


def rmse(y_true: Array, y_pred: Array) -> float:
    """Square root of `mse`, in the units of y."""
    return math.sqrt(mse(y_true, y_pred))


def mae(y_true: Array, y_pred: Array) -> float:
    """Mean of abs(y_true - y_pred) over samples and outputs."""
    true, predicted = _values(y_true, y_pred)
    return float(np.mean(np.abs(true - predicted)))


def r2(y_true: Array, y_pred: Array) -> float:
    """Coefficient of determination, 1 - sum (y_true - y_pred)**2 / sum (y_true - mean)**2, mean over the outputs.

    An output whose target is constant counts 1 where it is met exactly, else 0.
    """
    true, predicted = _values(y_true, y_pred)
    error = ((true - predicted) ** 2).sum(axis=0)
    spread = ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    constant = spread == 0
    scores = np.where(constant, error == 0, 1 - error / np.where(constant, 1, spread))
    return float(np.mean(scores))


BY_NAME: dict[str, Metric] = {
    metric.__name__: metric for metric in (accuracy, binary_accuracy, f1, auc, mse, rmse, mae, r2)
}
RISING = frozenset({"accuracy", "binary_accuracy", "f1", "auc", "r2"})
FALLING = frozenset({"loss", "penalty", "mse", "rmse", "mae"})


RESERVED = frozenset({"loss", "penalty", "lr", "seconds", "epoch"})
CLASSIFICATION = ("cross_entropy", "binary_cross_entropy")


def resolve(metrics: Any, loss: Loss | OwnLoss, outputs: int) -> dict[str, Metric]:
    """Metrics by the names they have in the history, for a net of so many outputs trained with this loss."""
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise TypeError(f"metrics must be a sequence such as ('accuracy',), got {metrics!r}.")
    found: dict[str, Metric] = {}
    for value in metrics:
        name, metric = _resolve_one(value, loss)
        if name in RESERVED or name.startswith("val_"):
            raise ValueError(
                f"a metric cannot be named {name!r}, which is a column of the history: rename the function."
            )
        if name in found:
            raise ValueError(f"two metrics are named {name!r}: give each function a name of its own.")
        _require_suitable(name, metric, loss, outputs)
        found[name] = metric
    return found


def default(loss: Loss | OwnLoss) -> tuple[str, ...]:
    """What `Sequential.evaluate` measures unless told."""
    return ("accuracy",) if isinstance(loss, Loss) and loss.name in CLASSIFICATION else ()


def _require_suitable(name: str, metric: Metric, loss: Loss | OwnLoss, outputs: int) -> None:
    """ValueError for a built-in metric that means nothing for this loss; own losses may go with any."""
    if metric is auc and outputs > 2:
        raise ValueError(f"the metric {name!r} is for two classes, but the net has {outputs} outputs.")
    if isinstance(metric, TopKAccuracy) and outputs < 2:
        raise ValueError(f"the metric {name!r} needs at least 2 outputs, but the net has {outputs}.")
    if isinstance(loss, OwnLoss):
        return
    if (metric in (accuracy, binary_accuracy, f1, auc) or isinstance(metric, TopKAccuracy)) and (
        loss.name not in CLASSIFICATION
    ):
        raise ValueError(f"the metric {name!r} is for classification, but the loss is {loss.name}.")
    if metric in (binary_accuracy, mse, rmse, mae, r2) and loss.name == "cross_entropy":
        raise ValueError(f"the metric {name!r} compares values, but the targets of cross_entropy are classes.")


def _resolve_one(metric: Any, loss: Loss | OwnLoss) -> tuple[str, Metric]:
    if isinstance(metric, str):
        k = metric.removeprefix("top_").removesuffix("_accuracy")
        if metric.startswith("top_") and k.isdecimal():
            return metric, TopKAccuracy(int(k))
        choice("a metric", metric, [*BY_NAME, "top_5_accuracy"])
        if metric == "accuracy" and isinstance(loss, BinaryCrossEntropy):
            return metric, binary_accuracy
        return metric, BY_NAME[metric]
    if not callable(metric) or isinstance(metric, type):
        raise TypeError(f"a metric must be a name or a function f(y_true, y_pred), got {metric!r}.")
    return getattr(metric, "__name__", type(metric).__name__), metric
