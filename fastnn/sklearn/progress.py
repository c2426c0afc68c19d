"""Where the training of one net stands, and what happens after each of its epochs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..callbacks import Callback, Logs
from ..trainer import Trainer

Array = np.ndarray[Any, Any]

SMALLEST_RATE = 1e-6  # of learning_rate="adaptive": the next stop is final


class Progress:
    """What an estimator keeps of a net's training, over warm starts and calls of partial_fit.

    Attributes
    ----------
    loss_curve, validation_scores : list of float
    best_loss, best_validation_score : float
    no_improvement : int
        Epochs since an improvement.
    n_iter : int
        Epochs of the last call.
    t : int
        Rows seen.
    passes : int
        Through the net in training mode; each draws masks of its own.
    learning_rate : float
        Of the next epoch.
    """

    def __init__(self) -> None:
        self.loss_curve: list[float] = []
        self.validation_scores: list[float] = []
        self.best_loss, self.best_validation_score = np.inf, -np.inf
        self.no_improvement = self.n_iter = self.t = self.passes = 0
        self.learning_rate = 0.0


class Watch(Callback):
    """Records every epoch of a call of fit or partial_fit, ends it when nothing improves, and sets the learning rate.

    Parameters
    ----------
    estimator : FastNN
        Whose parameters count.
    progress : Progress
    rows : int
        Per epoch.
    penalty_factor : float
        What the penalty counts in the loss of an epoch: batches per weight of the rows.
    score : function or None
        Of the validation rows at present.
    prefix : str
        In front of what is printed.
    """

    trainer: Trainer

    def __init__(
        self,
        estimator: Any,
        progress: Progress,
        rows: int,
        penalty_factor: float,
        score: Callable[[], float] | None,
        prefix: str = "",
    ) -> None:
        self._progress, self._rows, self._penalty_factor, self._score = progress, rows, penalty_factor, score
        self._stops_early = estimator.early_stopping and score is not None
        self._tol, self._patience = estimator.tol, estimator.n_iter_no_change
        self._schedule = estimator.learning_rate if estimator.solver == "sgd" else "constant"
        self._first_rate, self._power = float(estimator.learning_rate_init), estimator.power_t
        self._verbose, self._prefix = estimator.verbose, prefix
        self.stopped = False

    def on_fit_begin(self) -> None:
        self._progress.n_iter = 0
        if self._stops_early:
            self._keep_best()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        progress = self._progress
        progress.n_iter = epoch + 1
        progress.t += self._rows
        self._record(logs["loss"] + self._penalty_factor * logs["penalty"])
        if self._schedule == "invscaling":
            self._set_rate(self._first_rate / (progress.t + 1) ** self._power)
        if progress.no_improvement > self._patience:
            self._end_or_slow_down()

    def on_fit_end(self) -> None:
        self._progress.passes = self.trainer.net._engine.passes
        if self._stops_early:
            for name, view in self.trainer.net.parameters().items():
                view[...] = self._best[name]

    def diverged(self) -> None:
        """The epoch under way came to no finite loss."""
        self._progress.n_iter += 1
        self._progress.loss_curve.append(float("nan"))
        self._progress.validation_scores.append(float("nan"))

    def _record(self, loss: float) -> None:
        progress = self._progress
        progress.loss_curve.append(loss)
        self._print(f"Iteration {progress.n_iter}, loss = {loss:.8f}")
        score = None if self._score is None else self._score()
        if score is not None:
            progress.validation_scores.append(score)
            self._print(f"Validation score: {score:f}")
        if self._stops_early:
            assert score is not None
            improved = not score < progress.best_validation_score + self._tol
            if score > progress.best_validation_score:
                progress.best_validation_score = score
                self._keep_best()
        else:
            improved = not loss > progress.best_loss - self._tol
            progress.best_loss = min(loss, progress.best_loss)
            if score is not None:
                progress.best_validation_score = max(score, progress.best_validation_score)
        progress.no_improvement = 0 if improved else progress.no_improvement + 1

    def _keep_best(self) -> None:
        self._best = {name: view.copy() for name, view in self.trainer.net.parameters().items()}

    def _end_or_slow_down(self) -> None:
        what = "Validation score" if self._stops_early else "Training loss"
        reason = f"{what} did not improve more than tol={self._tol:f} for {self._patience} consecutive epochs."
        if self._schedule == "adaptive" and self._progress.learning_rate > SMALLEST_RATE:
            self._set_rate(self._progress.learning_rate / 5)
            self._progress.no_improvement = 0
            self._print(f"{reason} Setting learning rate to {self._progress.learning_rate:f}")
            return
        self._print(f"{reason} Stopping.")
        self.stopped = True
        self.request_stop(reason)

    def _set_rate(self, rate: float) -> None:
        """From the next epoch on. In scikit-learn momentum is a sum of steps, here of gradients: steps already summed
        keep their length.
        """
        engine = self.trainer.net._engine
        for index, (_, _, trainable, _) in enumerate(engine.tensors()):
            for moment in engine.moments(index)[:1] if trainable else ():
                moment *= self._progress.learning_rate / rate
        self._progress.learning_rate = rate
        self.trainer.lr_factor = rate / self._first_rate

    def _print(self, text: str) -> None:
        if self._verbose:
            print(f"{self._prefix}{text}", flush=True)
