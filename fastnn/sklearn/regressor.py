"""The regressor."""

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils._param_validation import StrOptions  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils.metaestimators import available_if  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils.validation import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    column_or_1d,
    validate_data,
)

from .. import losses
from ..losses import MAE, MSE, Huber, Poisson
from ..network import Sequential
from . import parameters
from .base import FastNN, Objective, Rows

Array = np.ndarray[Any, Any]

LOSSES = {"squared_error": MSE, "poisson": Poisson, "mae": MAE, "huber": Huber}


class FastNNRegressor(RegressorMixin, FastNN):  # type: ignore[misc]
    __doc__ = f"""A fully connected net that predicts numbers, with the parameters and objective of scikit-learn's MLP.

    Parameters
    ----------
    loss : {{"squared_error", "poisson", "mae", "huber"}}, Loss or function
        Minimised is the mean over the rows of the sum over the outputs, the squared error halved. "poisson" has a log
        link and needs y >= 0. An object such as ``fastnn.losses.Huber(delta=2)`` will do, or a function as
        `fastnn.Trainer` takes it, whose `y` is of shape (n, outputs).
    {parameters.COMMON}

    Attributes
    ----------
    {parameters.ATTRIBUTES}

    Notes
    -----
    {parameters.MEMBERS}

    With several outputs, scikit-learn reports half the squared error as a mean over them and follows the gradient of
    the sum; here `loss_curve_`, `best_loss_` and `tol` are those of the sum. The Poisson loss leaves out what depends
    on y alone.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **parameters.CONSTRAINTS,
        "loss": [StrOptions(set(LOSSES)), MSE, Poisson, MAE, Huber, callable],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        clip_norm: float | None = None,
        clip_value: Any = None,
        l1_ratio: float = 0.0,
        init: Any = None,
        scale: str | None = None,
        dtype: str | None = None,
        n_threads: int | None = None,
        n_ensemble: int = 1,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.l1_ratio = l1_ratio
        self.init = init
        self.scale = scale
        self.dtype = dtype
        self.n_threads = n_threads
        self.n_ensemble = n_ensemble

    @available_if(lambda estimator: estimator._is_stochastic)  # type: ignore[untyped-decorator,unused-ignore]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator,unused-ignore]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "FastNN":
        """Train for one epoch on these rows, from where the training stands.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, None, incremental=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Values.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
        return_std : bool
            Also return the spread of the nets; needs n_ensemble >= 2.

        Returns
        -------
        values : ndarray, shape (n,) or (n, outputs)
        deviation : ndarray of that shape, if return_std
            Standard deviation over the nets, with their number as divisor.
        """
        values = self._predict_members(X)
        values = values[..., 0] if values.shape[2] == 1 else values
        mean = values.mean(axis=0)
        if not return_std:
            return mean
        self._require_ensemble()
        return mean, values.std(axis=0)

    def _check_xy(self, X: Any, y: Any, first: bool) -> tuple[Any, Any]:
        kinds = ["csr", "csc"]
        checked = validate_data(
            self, X, y, accept_sparse=kinds, dtype="numeric", multi_output=True, y_numeric=True, reset=first
        )
        return checked[0], checked[1]

    def _check_y(self, y: Any, incremental: bool, first: bool) -> Array:
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if not first and outputs != self.n_outputs_:
            raise ValueError(f"y has {outputs} output(s), but the net was built for {self.n_outputs_}.")
        return np.asarray(y.reshape(len(y), -1))

    def _objective(self, y: Array) -> tuple[int, Objective]:
        outputs = y.shape[1]
        loss = losses.resolve(LOSSES[self.loss]() if isinstance(self.loss, str) else self.loss, outputs)
        link = "exp" if isinstance(loss, Poisson) else "identity"
        if isinstance(loss, losses.OwnLoss):
            return outputs, Objective(loss, 1.0, link)
        return outputs, Objective(loss, outputs / 2 if isinstance(loss, MSE) else float(outputs), link)

    def _outputs(self, net: Sequential, x: Array) -> Array:
        values = net.predict(x, n_threads=self.n_threads)
        return np.exp(values, out=values) if self.out_activation_ == "exp" else values

    def _score_outputs(self, outputs: Array, rows: Rows) -> float:
        """R2, the mean over the outputs, as r2_score computes it; NaN where an output is not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        y, weights = rows.y.astype(np.float64), rows.weights
        with np.errstate(over="ignore"):
            residual = np.average((y - outputs) ** 2, axis=0, weights=weights)
        total = np.average((y - np.average(y, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
        constant = np.where(residual == 0, 1.0, 0.0)
        return float(np.mean(np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), constant)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
