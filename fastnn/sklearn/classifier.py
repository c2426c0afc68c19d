"""The classifier."""

import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils._param_validation import StrOptions  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils.metaestimators import available_if  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils.multiclass import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
)
from sklearn.utils.validation import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    column_or_1d,
    validate_data,
)

from .. import losses
from .._declare import number
from ..layers import Sigmoid, Softmax
from ..losses import MSE, BinaryCrossEntropy, CrossEntropy
from ..network import Sequential
from . import parameters
from .base import FastNN, Objective, Rows

Array = np.ndarray[Any, Any]


class FastNNClassifier(ClassifierMixin, FastNN):  # type: ignore[misc]
    __doc__ = f"""A fully connected net that predicts classes, with the parameters and objective of scikit-learn's MLP.

    Parameters
    ----------
    {parameters.COMMON}
    loss : {{"log_loss", "brier"}}, CrossEntropy or function
        "log_loss" is summed over the labels of a multi-label `y`; "brier" is the squared error of the probabilities,
        summed over the outputs. ``fastnn.losses.CrossEntropy(label_smoothing=0.1)`` gives two classes an output each. A
        function as `fastnn.Trainer` takes it gets probabilities and a `y` of zeros and ones, (n, outputs).
    class_weight : dict of class to float, "balanced" or None
        Multiplies sample_weight in training, not in validation; a class that is missing counts 1. "balanced" is the
        weight of all rows / (number of classes * weight of the class's rows).

    Attributes
    ----------
    classes_ : ndarray
    {parameters.ATTRIBUTES}

    Notes
    -----
    {parameters.MEMBERS}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **parameters.CONSTRAINTS,
        "loss": [StrOptions({"log_loss", "brier"}), CrossEntropy, callable],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
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
        loss: Any = "log_loss",
        class_weight: Any = None,
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
        self.loss = loss
        self.class_weight = class_weight
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "FastNN":
        """Train for one epoch on these rows, from where the training stands.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like, optional
            All classes that will ever come; needed by the first call.

        Returns
        -------
        self
        """
        with self._undone_on_error():
            if _check_partial_fit_first_call(self, classes):
                self._multilabel = type_of_target(y).startswith("multilabel")
                if self._multilabel:
                    self.classes_ = np.arange(np.shape(y)[1])
            return self._fit(X, y, sample_weight, None, incremental=True)

    def predict(self, X: Any) -> Array:
        """The most probable class of each row, or of a multi-label net 0 or 1 per label, (n, labels)."""
        probabilities = self._predict_members(X).mean(axis=0)
        decisions = self._decide(probabilities)
        return decisions if self._multilabel else np.asarray(self.classes_[decisions])

    def predict_proba(self, X: Any, return_std: bool = False) -> Any:
        """Probabilities.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
        return_std : bool
            Also return the spread of the nets; needs n_ensemble >= 2.

        Returns
        -------
        probabilities : ndarray, shape (n, classes)
            In the order of `classes_`; of a multi-label net one per label, which need not sum to 1.
        deviation : ndarray of that shape, if return_std
            Standard deviation over the nets, with their number as divisor.
        """
        members = self._predict_members(X)
        if members.shape[2] == 1 and not self._multilabel:
            members = np.concatenate([1 - members, members], axis=2)[..., : len(self.classes_)]
            members = np.ones_like(members) if len(self.classes_) == 1 else members
        mean = members.mean(axis=0)
        if not return_std:
            return mean
        self._require_ensemble()
        return mean, members.std(axis=0)

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`; -inf where that is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def _check_xy(self, X: Any, y: Any, first: bool) -> tuple[Any, Any]:
        checked = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], dtype="numeric", multi_output=True, reset=first
        )
        return checked[0], checked[1]

    def _check_y(self, y: Any, incremental: bool, first: bool) -> Array:
        check_classification_targets(y)
        kind = type_of_target(y)
        if "multioutput" in kind:
            raise ValueError(f"y has several columns of classes ({kind}); columns of 0 and 1 are several labels.")
        y = y.toarray() if hasattr(y, "toarray") else y
        multilabel = kind.startswith("multilabel")
        y = y if multilabel else column_or_1d(y, warn=True)
        if first and not incremental:
            self._multilabel = multilabel
            self.classes_ = np.arange(y.shape[1]) if multilabel else np.unique(y)
        elif self._multilabel != multilabel or (multilabel and y.shape[1] != len(self.classes_)):
            raise ValueError(f"y is {kind} of shape {y.shape}, unlike that of the first fit.")
        if multilabel:
            return np.asarray(y, dtype=np.float64)
        self._require_known(np.unique(y), same=self.warm_start and not first and not incremental)
        return np.asarray(np.searchsorted(self.classes_, y), dtype=np.int32)

    def _require_known(self, classes: Array, same: bool) -> None:
        known = np.isin(classes, self.classes_)
        if same and (not known.all() or len(classes) != len(self.classes_)):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {classes}"
            )
        if not known.all():
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _objective(self, y: Array) -> tuple[int, Objective]:
        outputs = len(self.classes_)
        separate = self._multilabel or (outputs <= 2 and not isinstance(self.loss, CrossEntropy))
        outputs = outputs if self._multilabel or outputs > 2 or not separate else 1
        link = "logistic" if separate else "softmax"
        if isinstance(self.loss, CrossEntropy):
            if self._multilabel:
                raise ValueError(f"loss={self.loss!r} needs one class per row, got a multi-label y: use 'log_loss'.")
            return max(outputs, 2), Objective(self.loss, 1.0, link)
        if self.loss == "log_loss":
            if separate:
                return outputs, Objective(BinaryCrossEntropy(), float(outputs), link)
            return outputs, Objective(CrossEntropy(), 1.0, link)
        last = Sigmoid() if separate else Softmax()
        if self.loss == "brier":
            return outputs, Objective(MSE(), float(outputs), link, last)
        return outputs, Objective(losses.resolve(self.loss, outputs), 1.0, link, last)

    def _targets(self, y: Array, loss: Any) -> Array:
        if isinstance(loss, CrossEntropy) or y.ndim == 2:
            return y
        return y[:, np.newaxis] if self.n_outputs_ == 1 else np.asarray(np.eye(self.n_outputs_)[y])

    def _weigh(self, rows: Rows, incremental: bool) -> Rows:
        if self.class_weight is None:
            return rows
        if self._multilabel:
            raise ValueError("class_weight needs one class per row, got a multi-label y: use sample_weight.")
        if isinstance(self.class_weight, str):
            if incremental:
                raise ValueError("class_weight='balanced' needs all rows, which partial_fit has not: give a dict.")
            per_row = np.ones(len(rows.y)) if rows.weights is None else rows.weights
            totals = np.bincount(rows.y, per_row, len(self.classes_))
            factors = np.zeros(len(totals))
            np.divide(totals.sum() / np.count_nonzero(totals), totals, out=factors, where=totals > 0)
        else:
            factors = self._factors(self.class_weight)
        weights = factors[rows.y] if rows.weights is None else factors[rows.y] * rows.weights
        if not weights.any():
            raise ValueError("class_weight leaves every row the weight 0.")
        return Rows(rows.x, rows.y, weights)

    def _factors(self, class_weight: Mapping[Any, Any]) -> Array:
        places = {label: place for place, label in enumerate(self.classes_.tolist())}
        factors = np.ones(len(places))
        for label, weight in class_weight.items():
            if label not in places:
                raise ValueError(f"class_weight has the class {label!r}, but `y` has {self.classes_}.")
            if not isinstance(weight, numbers.Real):
                raise TypeError(f"class_weight[{label!r}] must be a number >= 0, got {weight!r}.")
            factors[places[label]] = number(f"class_weight[{label!r}]", float(weight), 0)
        return factors

    def _strata(self, y: Array) -> Array | None:
        return np.asarray(self.classes_[y]) if self.out_activation_ == "logistic" and not self._multilabel else None

    def _outputs(self, net: Sequential, x: Array) -> Array:
        return net.predict_proba(x, n_threads=self.n_threads)

    def _decide(self, probabilities: Array) -> Array:
        """Places in `classes_`, or of a multi-label net 0 or 1 per label."""
        if self._multilabel:
            return (probabilities > 0.5).astype(int)
        if probabilities.shape[1] > 1:
            return np.asarray(probabilities.argmax(axis=1))
        return np.minimum(probabilities[:, 0] > 0.5, len(self.classes_) - 1)

    def _score_outputs(self, outputs: Array, rows: Rows) -> float:
        right = self._decide(outputs) == rows.y
        right = right.all(axis=1) if self._multilabel else right
        return float(np.average(right, weights=rows.weights))

    def _class_names(self) -> list[str]:
        return [str(label) for label in self.classes_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
