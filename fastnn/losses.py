"""Losses: the mean over the rows of a batch, weighted by `sample_weight` where given.

All but cross-entropy are also means over the outputs of a row. Written z for what the net puts out, t for the target.
"""

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ._declare import Declaration, instance, named, number

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "Huber", "Loss", "OwnLoss", "Poisson"]

Array = np.ndarray[Any, Any]


class Loss(Declaration):
    """Base of the losses.

    Attributes
    ----------
    name : str
        As in ``Trainer(loss=name)``.
    link : {"softmax", "sigmoid", "exp", "identity"}
        What turns the outputs that the loss sees into probabilities, rates or values.
    """

    name = ""
    link = "identity"

    @property
    def parameter(self) -> float:
        return 0.0

    def record(self) -> tuple[str, float]:
        return self.name, self.parameter


class CrossEntropy(Loss):
    """``-sum_j t_j log softmax(z)_j``; targets are integer labels or rows of probabilities.

    Computed from the logits by log-sum-exp; a final Softmax layer is fused with it.

    Parameters
    ----------
    label_smoothing : float
        s in [0, 1): targets become (1 - s) t + s / classes.
    """

    name = "cross_entropy"
    link = "softmax"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        self._set(label_smoothing=number("label_smoothing", self.label_smoothing, 0, 1, open_high=True))

    @property
    def parameter(self) -> float:
        return self.label_smoothing


class BinaryCrossEntropy(Loss):
    """``-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`` with t in [0, 1]; a final Sigmoid layer is fused with it."""

    name = "binary_cross_entropy"
    link = "sigmoid"


class MSE(Loss):
    """``(z - t)**2``."""

    name = "mse"


class MAE(Loss):
    """``|z - t|``, with the gradient sign(z - t), sign(0) = 0."""

    name = "mae"


class Huber(Loss):
    """``r**2 / 2`` where ``|r| <= delta``, else ``delta (|r| - delta / 2)``, with r = z - t.

    Parameters
    ----------
    delta : float
        > 0, in the units of the target.
    """

    name = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        self._set(delta=number("delta", self.delta, 0, open_low=True))

    @property
    def parameter(self) -> float:
        return self.delta


class Poisson(Loss):
    """``exp(z) - t z``: the net puts out the logarithm of the rate; targets are counts, >= 0."""

    name = "poisson"
    link = "exp"


class OwnLoss:
    """A user's function ``f(y_pred, y) -> (mean loss, gradient)`` or ``f(y_pred, y, sample_weight)``.

    The arrays it gets are valid for that call only. The gradient is that of the mean loss with respect to `y_pred`, of
    the same shape.
    """

    link = "identity"

    def __init__(self, function: Callable[..., tuple[float, Array]]) -> None:
        from inspect import Parameter, signature

        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        try:
            parameters = signature(function).parameters
        except ValueError:
            raise TypeError(f"loss {self.name} has no signature to read: wrap it in a function f(y_pred, y).") from None
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        positional = [parameter for parameter in parameters.values() if parameter.kind in kinds]
        required = sum(parameter.default is Parameter.empty for parameter in positional)
        self._by_name = "sample_weight" in parameters and parameters["sample_weight"] not in positional[:3]
        self.takes_weights = "sample_weight" in parameters or required == 3
        takes_two = len(positional) >= 2 or any(p.kind is Parameter.VAR_POSITIONAL for p in parameters.values())
        if not takes_two or required > 3:
            raise TypeError(
                f"an own loss is f(y_pred, y) or f(y_pred, y, sample_weight), got {self.name}{signature(function)}."
            )

    def __repr__(self) -> str:
        return self.name

    def __call__(self, outputs: Array, y: Array, weights: Array | None) -> tuple[float, Array]:
        """The loss in float64, and its gradient as a contiguous array of the outputs' dtype."""
        if self._by_name:
            result = self.function(outputs, y, sample_weight=weights)
        else:
            result = self.function(outputs, y, weights) if self.takes_weights else self.function(outputs, y)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(f"loss {self.name} must return (mean loss, gradient), got {reprlib.repr(result)}.")
        value, gradient = map(np.asarray, result)
        if value.ndim != 0 or value.dtype.kind not in "iuf":
            raise TypeError(f"loss {self.name} must return one number as its mean loss, got {reprlib.repr(result[0])}.")
        if gradient.dtype.kind not in "iuf":
            raise TypeError(f"loss {self.name} gave a gradient of dtype {gradient.dtype}; it must hold real numbers.")
        if gradient.shape != outputs.shape:
            raise ValueError(f"loss {self.name} gave a gradient of shape {gradient.shape}, expected {outputs.shape}.")
        return float(value), np.ascontiguousarray(gradient, dtype=outputs.dtype)


BY_NAME: dict[str, Callable[[], Loss]] = {
    loss.name: loss for loss in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, Poisson)
}


def resolve(value: Any, outputs: int) -> Loss | OwnLoss:
    """A loss given as an object, by name, or as a function, for a net of so many outputs."""
    loss = _resolve(value)
    if isinstance(loss, CrossEntropy) and outputs < 2:
        raise ValueError("cross_entropy needs at least 2 outputs; use binary_cross_entropy for one.")
    return loss


def _resolve(value: Any) -> Loss | OwnLoss:
    if isinstance(value, OwnLoss):
        return value
    if callable(value) and not isinstance(value, (Loss, type)):
        return OwnLoss(value)
    if isinstance(value, str):
        return named("loss", value, Loss, BY_NAME, "a loss")
    return instance("loss", value, Loss, f"a loss, a function or a name among {', '.join(map(repr, BY_NAME))}")
