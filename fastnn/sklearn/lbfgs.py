"""The solver "lbfgs": SciPy's L-BFGS-B over all trainable parameters, loss and gradient from the engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize  # type: ignore[import-not-found,import-untyped,unused-ignore]
from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,import-untyped,unused-ignore]

from ..trainer import Trainer

Array = np.ndarray[Any, Any]


class Objective:
    """The loss over all rows and its gradient, as functions of the trainable parameters in one vector.

    Parameters
    ----------
    trainer : Trainer
        Without a penalty of its own; its optimizer is plain SGD, which at the rate 0 changes nothing.
    x, y, sample_weight
        As for `Trainer.fit`.
    alpha : float
        The penalty is ``alpha / 2 * sum w**2``, divided by the sum of weights of the rows.
    """

    def __init__(self, trainer: Trainer, x: Array, y: Array, sample_weight: Array | None, alpha: float) -> None:
        net = trainer.net
        self._trainer, self._samples = trainer, trainer._check(x, y, sample_weight)
        net._fit_standardize(self._samples.x, self._samples.weights)
        trainer._configure()
        self._starts = np.array([0, len(self._samples.x)], dtype=np.uint64)
        self._parameters = net.parameters(trainable=True)
        self._gradients = net.gradients()
        total = len(self._samples.x) if self._samples.weights is None else self._samples.weights.sum()
        self._decay = alpha / total

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Both in float64; NaN and 0 where the loss or a gradient is not finite."""
        self.load(theta)
        run = self._trainer._run(self._samples, self._starts, np.zeros(1))
        if run.failure is not None:
            return np.nan, np.zeros_like(theta)
        loss, parts = run.loss_sum / run.weight_sum, []
        for name, gradient in self._gradients.items():
            part = gradient.astype(np.float64)
            if name.endswith(".weight"):
                weight = self._parameters[name].astype(np.float64)
                part += self._decay * weight
                loss += self._decay / 2 * float(np.vdot(weight, weight))
            parts.append(part.ravel())
        return loss, np.concatenate(parts)

    def start(self) -> Array:
        return np.concatenate([view.ravel() for view in self._parameters.values()]).astype(np.float64)

    def load(self, theta: Array) -> None:
        begin = 0
        for view in self._parameters.values():
            view[...] = theta[begin : begin + view.size].reshape(view.shape)
            begin += view.size


def fit(
    objective: Objective, max_iter: int, max_fun: int, tol: float, report: Callable[[float], None]
) -> OptimizeResult:
    """Minimise; the net gets the best weights, `report` the loss after each iteration."""

    def callback(intermediate_result: OptimizeResult) -> None:
        report(float(intermediate_result.fun))

    options = {"maxiter": max_iter, "maxfun": max_fun, "gtol": tol}
    # SciPy's own work is on vectors; threads of BLAS only get in each other's way: 14 -> 0.2 ms per iteration of a net
    # of 1,300 parameters on a busy machine of two cores.
    with threadpool_limits(1, "blas"):
        result = minimize(objective, objective.start(), method="L-BFGS-B", jac=True, options=options, callback=callback)
    objective.load(result.x)
    return result
