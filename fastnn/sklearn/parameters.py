"""The estimators' parameters: which values they take, what they mean, and what fastnn makes of them."""

import numbers
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.utils._param_validation import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    Interval,
    Options,
    StrOptions,
)

from .._declare import MOST_THREADS, number
from ..clipping import ClipNorm, Clipping, ClipValue
from ..initializers import Initializer
from ..layers import ACTIVATIONS, Activation, BatchNorm, Dense, Dropout, Layer, Sigmoid, Standardize
from ..optimizers import SGD, Adam, Optimizer
from ..regularizers import L1, L2, ElasticNet, Regularizer

Array = np.ndarray[Any, Any]

SKLEARN_NAMES = {"logistic": "sigmoid"}

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(numbers.Integral, 1, None, closed="left")],
    "activation": [StrOptions({"logistic", *ACTIVATIONS}), Activation, "array-like"],
    "solver": [StrOptions({"lbfgs", "sgd", "adam"}), Optimizer],
    "alpha": [Interval(numbers.Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(numbers.Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [Interval(numbers.Real, 0, None, closed="neither")],
    "power_t": [Interval(numbers.Real, 0, None, closed="left")],
    "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(numbers.Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(numbers.Real, 0, 1, closed="left")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(numbers.Real, 0, 1, closed="left")],
    "beta_1": [Interval(numbers.Real, 0, 1, closed="left")],
    "beta_2": [Interval(numbers.Real, 0, 1, closed="left")],
    "epsilon": [Interval(numbers.Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(numbers.Integral, 1, None, closed="left"), Options(numbers.Real, {np.inf})],
    "max_fun": [Interval(numbers.Integral, 1, None, closed="left")],
    "dropout": [Interval(numbers.Real, 0, 1, closed="left"), "array-like"],
    "batch_norm": ["boolean"],
    "clip_norm": [Interval(numbers.Real, 0, None, closed="neither"), None],
    "clip_value": [Interval(numbers.Real, 0, None, closed="neither"), "array-like", None],
    "l1_ratio": [Interval(numbers.Real, 0, 1, closed="both")],
    "init": [str, Initializer, None],
    "scale": [StrOptions({"standard"}), None],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "n_threads": [Interval(numbers.Integral, 1, MOST_THREADS, closed="both"), None],
    "n_ensemble": [Interval(numbers.Integral, 1, None, closed="left")],
}

# The part of both docstrings that is the same.
COMMON = """hidden_layer_sizes : int or sequence of int
        Units per hidden layer; () is a linear model.
    activation : str, Activation or a list of them
        Of the hidden layers: "identity", "logistic", "tanh", "relu" or another name or layer of `fastnn.layers`; a list
        has one per hidden layer.
    solver : {"adam", "sgd", "lbfgs"} or Optimizer
        An optimizer of fastnn brings its own rate and constants; those of the parameters below are then not used.
        "lbfgs" minimises over all rows at once, through SciPy, and knows no dropout, batch_norm, clipping or l1_ratio.
    alpha : float
        Strength of the penalty ``alpha / n * (l1_ratio * sum |w| + (1 - l1_ratio) / 2 * sum w**2)``, n being the sum of
        weights of the batch.
    batch_size : int or "auto"
        Rows per step; "auto" is min(200, rows). Not for lbfgs.
    learning_rate : {"constant", "invscaling", "adaptive"}
        For solver="sgd": the same rate for ever; ``learning_rate_init / (t_ + 1)**power_t`` after each epoch; a fifth
        whenever neither tol nor patience is left, until 1e-6.
    learning_rate_init, power_t, momentum, nesterovs_momentum, beta_1, beta_2, epsilon : float, bool
        Of the solvers.
    max_iter : int
        Most epochs (lbfgs: iterations).
    shuffle : bool
        A new order of the rows in every epoch.
    random_state : int, RandomState or None
        Of initial weights (with init=None those of scikit-learn for the same state), the validation split (the same
        rows as there), shuffles and masks of dropout (fastnn's own).
    tol, n_iter_no_change : float, int
        Stop when the loss (with early_stopping the score of the validation rows) has not improved by `tol` for more
        than this many epochs. lbfgs: `tol` is the largest element of the gradient.
    verbose : bool or int
        Print a line per epoch.
    warm_start : bool
        Start `fit` from the weights of the last one.
    early_stopping : bool
        Stop by the score of validation rows, and keep the weights of the best epoch.
    validation_fraction : float
        Share of the rows that validates where `fit` gets no `eval_set`; two classes are stratified, as in scikit-learn
        no more than two.
    max_fun : int
        Most evaluations of the loss by lbfgs.
    dropout : float or sequence of float
        Probability of dropping a unit of the hidden layers; a sequence has one per layer, that of the input first.
    batch_norm : bool
        BatchNorm between every hidden layer and its activation.
    clip_norm : float, optional
        Largest norm of the gradient.
    clip_value : float or (float, float), optional
        Largest size of an element of the gradient, or its smallest and largest value.
    l1_ratio : float
        In [0, 1]. With 1 the penalty acts after each step as soft-thresholding, so that weights become exactly 0.
    init : str or Initializer, optional
        How weights start, by a name or object of `fastnn.initializers`, biases at zero. None: scikit-learn's way,
        uniform in +-sqrt(6 / (fan_in + fan_out)), biases too (2 in place of 6 for "logistic").
    scale : "standard" or None
        Standardise the features by a first layer of the net; its mean and scale come from the training rows of the
        first call, weighted by `sample_weight`. `coefs_` are then the weights on scaled features.
    dtype : {"float32", "float64"}, optional
        Of weights and arithmetic; None: float64 for float64 `X`, else float32.
    n_threads : int, optional
        None: as `fastnn.get_num_threads` says.
    n_ensemble : int
        Nets with different initial weights, shuffles and masks, trained side by side; predictions are their mean."""

ATTRIBUTES = """net_ : Sequential
        With n_ensemble > 1 there is `nets_`, a list, in its place.
    history_ : History
        Of the last call of fit or partial_fit.
    loss_, best_loss_ : float
        Of the last and the best epoch; `best_loss_` is None with early_stopping.
    loss_curve_ : list of float
        Per epoch, over warm starts and partial_fit: mean loss of its rows in training mode, and the penalty at its end.
    validation_scores_, best_validation_score_ : list of float, float or None
        Accuracy or R2 of the validation rows per epoch, where there are any.
    n_iter_, t_ : int
        Epochs of the last call, and rows seen in all.
    coefs_, intercepts_ : tuple of ndarray
        Views into the net: writing into them takes effect, as does assigning a sequence of arrays of their shapes.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn."""

MEMBERS = """With n_ensemble > 1, `history_`, `loss_`, `best_loss_`, `loss_curve_`, `validation_scores_` and
    `best_validation_score_` are lists with an entry per net, and `n_iter_` is the largest."""


def hidden_sizes(value: Any) -> list[int]:
    sizes = list(value) if np.iterable(value) else [value]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {value!r}.")
    return [int(size) for size in sizes]


def hidden_activations(value: Any, count: int) -> list[Activation]:
    """One per hidden layer."""
    if isinstance(value, (str, Activation)):
        values: Sequence[Any] = [value] * count
    elif len(value) == count:
        values = value
    else:
        raise ValueError(f"activation must have one entry per hidden layer ({count}), got {value!r}.")
    return [Dense(1, SKLEARN_NAMES.get(v, v) if isinstance(v, str) else v).own_activation for v in values]


def dropout_rates(value: Any, count: int) -> list[float]:
    """Of the input, and of every hidden layer."""
    if isinstance(value, numbers.Real):
        return [0.0, *[float(value)] * count]
    if len(value) != count + 1:
        raise ValueError(
            f"dropout must be a number or {count + 1} of them (the input's first, then one per hidden layer), "
            f"got {value!r}."
        )
    return [number(f"dropout[{i}]", p, 0, 1, open_high=True) for i, p in enumerate(value)]


def build_layers(estimator: Any, outputs: int, last: Activation | None) -> list[Layer]:
    """The net of an estimator's parameters."""
    sizes = hidden_sizes(estimator.hidden_layer_sizes)
    activations = hidden_activations(estimator.activation, len(sizes))
    rates = dropout_rates(estimator.dropout, len(sizes))
    layers: list[Layer] = [] if estimator.scale is None else [Standardize()]
    if rates[0]:
        layers.append(Dropout(rates[0]))
    for size, activation, rate in zip(sizes, activations, rates[1:], strict=True):
        if estimator.batch_norm:
            layers += [Dense(size, init=estimator.init), BatchNorm(), activation]
        else:
            layers.append(Dense(size, activation, init=estimator.init))
        if rate:
            layers.append(Dropout(rate))
    return [*layers, Dense(outputs, last, init=estimator.init)]


def draw_weights(estimator: Any, inputs: int, outputs: int, random_state: Any) -> list[tuple[Array, Array]]:
    """(weights, bias) per Dense layer, uniform as in scikit-learn and drawn in its order."""
    sizes = hidden_sizes(estimator.hidden_layer_sizes)
    activations = hidden_activations(estimator.activation, len(sizes))
    widths = [inputs, *sizes, outputs]
    drawn = []
    for place, (fan_in, fan_out) in enumerate(pairwise(widths)):
        near = activations[min(place, len(sizes) - 1)] if sizes else None
        bound = np.sqrt((2 if isinstance(near, Sigmoid) else 6) / (fan_in + fan_out))
        weights = random_state.uniform(-bound, bound, (fan_in, fan_out))
        drawn.append((weights, random_state.uniform(-bound, bound, fan_out)))
    return drawn


def build_optimizer(estimator: Any) -> Optimizer:
    rate = estimator.learning_rate_init
    if isinstance(estimator.solver, Optimizer):
        return estimator.solver
    if estimator.solver == "adam":
        return Adam(rate, (estimator.beta_1, estimator.beta_2), estimator.epsilon)
    if estimator.solver == "sgd":
        return SGD(rate, estimator.momentum, bool(estimator.nesterovs_momentum and estimator.momentum > 0))
    return SGD(1.0)


def build_penalty(estimator: Any) -> Regularizer | None:
    """To be divided by the sum of weights of each batch."""
    alpha, ratio = float(estimator.alpha), float(estimator.l1_ratio)
    if alpha == 0:
        return None
    if ratio == 0:
        return L2(alpha / 2)
    return L1(alpha, proximal=True) if ratio == 1 else ElasticNet(alpha * ratio, (1 - ratio) / (2 * ratio))


def build_clipping(estimator: Any) -> Clipping | None:
    norm, value = estimator.clip_norm, estimator.clip_value
    if norm is not None and value is not None:
        raise ValueError(f"give clip_norm or clip_value, not both, got {norm!r} and {value!r}.")
    if norm is not None:
        return ClipNorm(float(norm))
    if value is None:
        return None
    if isinstance(value, numbers.Real):
        return ClipValue(-float(value), float(value))
    if len(value) != 2:
        raise ValueError(f"clip_value must be a number or (smallest, largest), got {value!r}.")
    return ClipValue(*value)


def require_lbfgs(estimator: Any) -> None:
    """ValueError for what makes the loss random, changes the gradient, or has no gradient at 0."""
    sizes = hidden_sizes(estimator.hidden_layer_sizes)
    used = {
        "dropout": any(dropout_rates(estimator.dropout, len(sizes))),
        "batch_norm": estimator.batch_norm,
        "clip_norm": estimator.clip_norm is not None,
        "clip_value": estimator.clip_value is not None,
        "l1_ratio": estimator.l1_ratio > 0 and estimator.alpha > 0,
    }
    names = [name for name, is_used in used.items() if is_used]
    if names:
        raise ValueError(f"solver='lbfgs' is not possible with {', '.join(names)}: use 'adam', 'sgd' or an optimizer.")
