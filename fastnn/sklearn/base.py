"""What the classifier and the regressor share: from parameters and arrays to trained nets."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, _fit_context  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils import check_random_state  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sklearn.utils.validation import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from .. import _strings, losses
from .._declare import threads, warn
from ..errors import DivergenceError
from ..history import History
from ..layers import Activation, Layer, Standardize
from ..losses import Loss
from ..many import fit_many
from ..network import Sequential
from ..trainer import Trainer
from . import lbfgs, parameters
from .member import Member
from .progress import Watch

Array = np.ndarray[Any, Any]

DENSE_ELEMENTS = 1 << 20  # of a sparse X, in memory at once for a prediction


class Objective(NamedTuple):
    """What is minimised, as fastnn and as scikit-learn count it.

    Attributes
    ----------
    loss : Loss or function
        Mean over the rows, and over the outputs.
    scale : float
        What makes it the sum over the outputs, halved for the squared error.
    link : str
        From the outputs to what is predicted, as `out_activation_` names it.
    last : Activation or None
        Of the output layer; None where the loss does it.
    """

    loss: Any
    scale: float
    link: str
    last: Activation | None = None


class Rows(NamedTuple):
    """Checked features and targets; `weights` is one float64 per row or None."""

    x: Array
    y: Array
    weights: Array | None = None


class FastNN(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = parameters.CONSTRAINTS

    # ---- what the classifier and the regressor differ in ----

    def _check_y(self, y: Any, incremental: bool, first: bool) -> Array:
        """Targets as fastnn takes them, (n,) or (n, outputs)."""
        raise NotImplementedError

    def _check_xy(self, X: Any, y: Any, first: bool) -> tuple[Any, Any]:
        raise NotImplementedError

    def _objective(self, y: Array) -> tuple[int, Objective]:
        """(outputs, what is minimised) for such targets."""
        raise NotImplementedError

    def _targets(self, y: Array, loss: Any) -> Array:
        """As the loss takes them."""
        return y

    def _weigh(self, rows: Rows, incremental: bool) -> Rows:
        """With class weights."""
        return rows

    def _outputs(self, net: Sequential, x: Array) -> Array:
        """Probabilities or values, (n, outputs)."""
        raise NotImplementedError

    def _score_outputs(self, outputs: Array, rows: Rows) -> float:
        raise NotImplementedError

    def _class_names(self) -> list[str]:
        """Of the outputs, empty if they have none."""
        return []

    # ---- fitting ----

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator,unused-ignore]
    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> "FastNN":
        """Train the net.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Of any real dtype; integers stay as they are in memory, a sparse matrix becomes dense.
        y : array_like, shape (n,) or (n, outputs)
        sample_weight : array_like, shape (n,), optional
            >= 0; the loss of a batch is sum(w * loss) / sum(w).
        eval_set : (X, y) or (X, y, sample_weight), optional
            Rows that validate: `validation_scores_` are theirs, and early_stopping looks at them, not at a share of
            `X`.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, eval_set, incremental=False)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """What an error or Ctrl-C ends leaves the attributes of the fit before, or none."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool) -> "FastNN":
        with self._undone_on_error():
            self._fit_nets(X, y, sample_weight, eval_set, incremental)
        return self

    def _fit_nets(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool) -> None:
        first = not hasattr(self, "_members") or not (self.warm_start or incremental)
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.solver == "lbfgs":
            parameters.require_lbfgs(self)
        rows = self._check_rows(X, y, sample_weight, incremental, first)
        if self.batch_norm and len(rows.x) < 2:
            raise ValueError(f"batch_norm needs at least 2 rows, got n_samples = {len(rows.x)}.")
        outputs, objective = self._objective(rows.y)
        if first:
            self.n_outputs_, self.n_layers_ = outputs, len(parameters.hidden_sizes(self.hidden_layer_sizes)) + 2
            self.out_activation_ = objective.link
        layers = parameters.build_layers(self, outputs, objective.last)
        random_state = check_random_state(self.random_state)
        drawn = self._draw(rows, outputs, random_state) if first else None
        rows, validation = self._split(rows, eval_set, random_state)
        rows = self._weigh(rows, incremental)
        if first:
            self._members = []
            for place in range(self.n_ensemble):
                weights = self._draw(rows, outputs, random_state) if place else drawn
                self._members.append(Member(self._build(layers, rows.x, weights, random_state)))
        else:
            self._require_same(layers, objective.link)
        if self.solver == "lbfgs":
            for member in self._members:
                self._minimize(member, rows, objective)
        else:
            self._train(rows, validation, objective, incremental)

    def _check_rows(self, X: Any, y: Any, sample_weight: Any, incremental: bool, first: bool) -> Rows:
        X, y = self._check_xy(X, y, first)
        y = self._check_y(y, incremental, first)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            if not weights.any():
                raise ValueError("`sample_weight` must contain at least one non-zero number.")
        return Rows(_dense(X), y, weights)

    def _draw(self, rows: Rows, outputs: int, random_state: Any) -> list[tuple[Array, Array]] | None:
        if self.init is not None:
            return None
        return parameters.draw_weights(self, rows.x.shape[1], outputs, random_state)

    def _build(
        self, layers: list[Layer], x: Array, drawn: list[tuple[Array, Array]] | None, random_state: Any
    ) -> Sequential:
        dtype = self.dtype or ("float64" if x.dtype == np.float64 else "float32")
        net = Sequential(layers, x.shape[1], dtype, int(random_state.randint(2**31 - 1)))
        views = net.parameters()
        for place, (weight, bias) in zip(_dense_places(net), drawn or (), strict=False):
            views[f"{place}.weight"][...] = weight
            views[f"{place}.bias"][...] = bias
        if names := self._class_names():
            net._attachments |= _strings.pack("class_names", names)
        if hasattr(self, "feature_names_in_"):
            net._attachments |= _strings.pack("feature_names", self.feature_names_in_)
        return net

    def _split(self, rows: Rows, eval_set: Any, random_state: Any) -> tuple[Rows, Rows | None]:
        """Rows that train, rows that validate."""
        if eval_set is not None:
            if not isinstance(eval_set, (tuple, list)) or len(eval_set) not in (2, 3):
                raise ValueError("eval_set must be a tuple (X, y) or (X, y, sample_weight).")
            X, y, *weights = eval_set
            return rows, self._check_rows(X, y, weights[0] if weights else None, incremental=True, first=False)
        if not self.early_stopping or self.solver == "lbfgs":
            return rows, None
        arrays = [array for array in rows if array is not None]
        options = {"random_state": random_state, "test_size": self.validation_fraction}
        parts = train_test_split(*arrays, stratify=self._strata(rows.y), **options)
        if len(parts[1]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return Rows(*parts[::2]), Rows(*parts[1::2])

    def _strata(self, y: Array) -> Array | None:
        return None

    def _require_same(self, layers: list[Layer], link: str) -> None:
        """ValueError where the parameters of the net were changed since it was built."""
        net = self._members[0].net
        present = net.layers
        same = len(present) == len(layers) and all(
            a == b or (isinstance(a, Standardize) and isinstance(b, Standardize))
            for a, b in zip(present, layers, strict=True)
        )
        same = same and link == self.out_activation_ and self.dtype in (None, net.dtype)
        if not same or len(self._members) != self.n_ensemble:
            raise ValueError(
                "warm_start and partial_fit go on with the net of the last fit, but hidden_layer_sizes, activation, "
                "dropout, batch_norm, init, scale, loss, dtype or n_ensemble was changed since. Clone the estimator."
            )

    def _train(self, rows: Rows, validation: Rows | None, objective: Objective, incremental: bool) -> None:
        count, batch_size = len(rows.x), self._batch_size(len(rows.x))
        total = count if rows.weights is None else float(rows.weights.sum())
        factor = -(-count // batch_size) / total
        trainers = [self._trainer(member, objective, batch_size, incremental) for member in self._members]
        watches = [
            Watch(self, member.progress, count, factor, self._scorer(member.net, validation), prefix)
            for member, prefix in zip(self._members, self._prefixes(), strict=True)
        ]
        epochs = 1 if incremental else self.max_iter
        rows = rows._replace(y=self._targets(rows.y, objective.loss))
        checked = None
        if validation is not None:
            y = self._targets(validation.y, objective.loss)
            checked = (validation.x, y, *(() if validation.weights is None else (validation.weights,)))
        self._run(trainers, watches, rows, epochs, checked)
        for member, trainer in zip(self._members, trainers, strict=True):
            member.history = _scaled(trainer.history, objective.scale)
        if not incremental and any(
            member.progress.n_iter == self.max_iter and not watch.stopped
            for member, watch in zip(self._members, watches, strict=True)
        ):
            warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
            )

    def _run(self, trainers: list[Trainer], watches: list[Watch], rows: Rows, epochs: int, validation: Any) -> None:
        common = {"validation_data": validation, "sample_weight": rows.weights, "shuffle": bool(self.shuffle)}
        try:
            if len(trainers) == 1:
                trainers[0].fit(rows.x, rows.y, epochs, callbacks=watches, verbose=0, **common)
            else:
                lists = [[watch] for watch in watches]
                fit_many(
                    trainers, rows.x, rows.y, epochs, callbacks=lists, verbose=0, n_threads=self.n_threads, **common
                )
        except DivergenceError as error:
            if not self.early_stopping:
                raise ValueError(
                    "Solver produced non-finite parameter weights. The input data may contain large values and need to "
                    f"be preprocessed. {error}"
                ) from error
            for trainer, watch in zip(trainers, watches, strict=True):
                if trainer.failed:
                    watch.diverged()
            warn(f"{error} The weights of the best epoch before are taken.", ConvergenceWarning)
        except KeyboardInterrupt:
            pass  # fit has warned, and the nets are usable

    def _batch_size(self, count: int) -> int:
        if self.batch_size == "auto":
            return min(200, count)
        if self.batch_size > count:
            warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped: "
                f"{self.batch_size} to {count}."
            )
        return min(int(self.batch_size), count)

    def _trainer(self, member: Member, objective: Objective, batch_size: int, incremental: bool) -> Trainer:
        goes_on = incremental and member.goes_on
        before = member.trainer
        trainer = before if goes_on and before is not None else self._new_trainer(member.net, objective, batch_size)
        if goes_on and before is None:
            member.resume(trainer)
        elif goes_on:
            # As in scikit-learn the optimizer stays, and the rest is as the parameters say now.
            trainer.clip, trainer.regularizer = parameters.build_clipping(self), parameters.build_penalty(self)
            trainer.loss, trainer._objective = losses.resolve(objective.loss, self.n_outputs_), (objective.scale, True)
            trainer.batch_size, trainer._threads = batch_size, threads(self.n_threads)
            member.net._configured_for = None
        else:
            member.start(trainer, float(self.learning_rate_init))
        return trainer

    def _new_trainer(self, net: Sequential, objective: Objective, batch_size: int | str) -> Trainer:
        stochastic = self.solver != "lbfgs"
        trainer = Trainer(
            net,
            loss=objective.loss,
            optimizer=parameters.build_optimizer(self),
            clip=parameters.build_clipping(self) if stochastic else None,
            regularizer=parameters.build_penalty(self) if stochastic else None,
            batch_size=batch_size,
            n_threads=self.n_threads,
        )
        trainer._objective = objective.scale, stochastic
        return trainer

    def _scorer(self, net: Sequential, validation: Rows | None) -> Callable[[], float] | None:
        if validation is None:
            return None
        return lambda: self._score_outputs(self._outputs(net, validation.x), validation)

    def _minimize(self, member: Member, rows: Rows, objective: Objective) -> None:
        trainer = self._new_trainer(member.net, objective, "full")
        if isinstance(trainer.loss, Loss):
            trainer.micro_batch = 4096  # what is in memory at once
        member.trainer, member.history = None, History()
        function = lbfgs.Objective(
            trainer, rows.x, self._targets(rows.y, objective.loss), rows.weights, float(self.alpha)
        )
        prefix = self._prefixes()[self._members.index(member)]

        def report(loss: float) -> None:
            member.history.append({"loss": loss})
            if self.verbose:
                print(f"{prefix}Iteration {member.history.epochs}, loss = {loss:.8f}", flush=True)

        result = lbfgs.fit(function, self.max_iter, self.max_fun, self.tol, report)
        if not np.isfinite(result.fun):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        member.progress.n_iter, member.progress.best_loss = int(result.nit), float(result.fun)
        member.history.stopped_because = str(result.message)
        if result.status != 0:
            warn(
                f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}): {result.message}.",
                ConvergenceWarning,
            )

    def _prefixes(self) -> list[str]:
        count = len(self._members)
        return [f"Net {i + 1} of {count}: " for i in range(count)] if count > 1 else [""]

    @property
    def _is_stochastic(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit needs a stochastic solver, and 'lbfgs' is none.")
        return True

    # ---- prediction ----

    def _predict_members(self, X: Any) -> Array:
        """(nets, n, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype="numeric", reset=False)
        return np.stack([self._predict_net(member.net, X) for member in self._members])

    def _predict_net(self, net: Sequential, X: Any) -> Array:
        if not hasattr(X, "tocsr"):
            return self._outputs(net, X)
        step = max(1, DENSE_ELEMENTS // X.shape[1])
        X = X.tocsr()
        return np.concatenate([self._outputs(net, X[i : i + step].toarray()) for i in range(0, X.shape[0], step)])

    def _require_ensemble(self) -> None:
        if len(self._members) == 1:
            raise ValueError("return_std=True needs several nets: n_ensemble >= 2, got 1.")

    # ---- what a fit leaves ----

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_members")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _of_members(self, name: str, read: Callable[[Member], Any]) -> Any:
        """Of the one net, or a list."""
        if not hasattr(self, "_members"):
            raise AttributeError(f"{name}: this {type(self).__name__} is not fitted yet.")
        values = [read(member) for member in self._members]
        return values[0] if len(values) == 1 else values

    def _of_progress(self, name: str) -> Any:
        if self.solver == "lbfgs":
            raise AttributeError(f"{name}_: solver='lbfgs' has no epochs.")
        return self._of_members(f"{name}_", lambda member: getattr(member.progress, name))

    def _only_net(self, name: str) -> Sequential:
        net = self._of_members(name, lambda member: member.net)
        if isinstance(net, list):
            raise AttributeError(f"{name}: with n_ensemble > 1 the nets are in nets_.")
        assert isinstance(net, Sequential)
        return net

    @property
    def net_(self) -> Sequential:
        return self._only_net("net_")

    @property
    def nets_(self) -> list[Sequential]:
        nets = self._of_members("nets_", lambda member: member.net)
        return nets if isinstance(nets, list) else [nets]

    @property
    def history_(self) -> Any:
        return self._of_members("history_", lambda member: member.history)

    @property
    def loss_curve_(self) -> Any:
        return self._of_progress("loss_curve")

    @property
    def loss_(self) -> Any:
        if self.solver == "lbfgs":
            return self._of_members("loss_", lambda member: member.progress.best_loss)
        return self._of_members("loss_", lambda m: m.progress.loss_curve[-1] if m.progress.loss_curve else None)

    @property
    def best_loss_(self) -> Any:
        if self.early_stopping:
            return self._of_members("best_loss_", lambda member: None)
        return self._of_progress("best_loss")

    @property
    def validation_scores_(self) -> Any:
        return self._of_members("validation_scores_", lambda member: member.progress.validation_scores or None)

    @property
    def best_validation_score_(self) -> Any:
        return self._of_members(
            "best_validation_score_",
            lambda m: m.progress.best_validation_score if m.progress.validation_scores else None,
        )

    @property
    def n_iter_(self) -> int:
        return int(np.max(self._of_members("n_iter_", lambda member: member.progress.n_iter)))

    @property
    def t_(self) -> int:
        return int(np.max(self._of_members("t_", lambda member: member.progress.t)))

    @property
    def coefs_(self) -> tuple[Array, ...]:
        return self._views("coefs_", "weight")

    @coefs_.setter
    def coefs_(self, values: Sequence[Any]) -> None:
        self._assign("coefs_", "weight", values)

    @property
    def intercepts_(self) -> tuple[Array, ...]:
        return self._views("intercepts_", "bias")

    @intercepts_.setter
    def intercepts_(self, values: Sequence[Any]) -> None:
        self._assign("intercepts_", "bias", values)

    def _views(self, name: str, role: str) -> tuple[Array, ...]:
        net = self._only_net(name)
        views = net.parameters()
        return tuple(views[f"{place}.{role}"] for place in _dense_places(net))

    def _assign(self, name: str, role: str, values: Sequence[Any]) -> None:
        views = self._views(name, role)
        arrays = [np.asarray(value) for value in values]
        shapes, expected = [array.shape for array in arrays], [view.shape for view in views]
        if shapes != expected:
            raise ValueError(f"{name} must be arrays of the shapes {expected}, got {shapes}.")
        for view, array in zip(views, arrays, strict=True):
            view[...] = array


def _dense(X: Any) -> Array:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X)


def _dense_places(net: Sequential) -> list[int]:
    return [place for name, place, *_ in net._engine.tensors() if name.endswith(".weight")]


def _scaled(history: History, scale: float) -> History:
    """`val_loss` as `loss` is counted."""
    if "val_loss" in history:
        history._columns["val_loss"] = [scale * value for value in history["val_loss"]]
    return history
