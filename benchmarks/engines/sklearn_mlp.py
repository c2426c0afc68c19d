"""scikit-learn: `partial_fit` on many batches at once, input checks switched off."""

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..workloads import Workload
from . import Data, Run, Training, UnsupportedError, repeat

sklearn.set_config(assume_finite=True, skip_parameter_validation=True)


def build(work: Workload, rate: float, seed: int, regressor: bool) -> MLPClassifier | MLPRegressor:
    if work.regularised:
        raise UnsupportedError("scikit-learn has no BatchNorm, dropout or clipping.")
    kind = MLPRegressor if regressor else MLPClassifier
    return kind(
        hidden_layer_sizes=work.widths[1:-1],
        activation=work.activation,
        solver=work.optimizer,
        alpha=0.0,
        batch_size=work.batch,
        learning_rate_init=rate,
        shuffle=not work.full_batch,
        momentum=0.0,
        random_state=seed,
    )


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    x, y = data
    net = build(work, rate, seed, work.loss == "mse")
    classes = {} if work.loss == "mse" else {"classes": np.arange(work.widths[-1])}
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]

    def run(steps: int) -> None:
        for rows, epochs in work.stretches(steps):
            for _ in range(epochs):
                net.partial_fit(x[rows], y[rows], **classes)

    return run, net.predict if work.loss == "mse" else net.predict_proba


def predict(work: Workload, threads: int, dtype: str) -> Run:
    net, x = build(work, 1e-3, 0, regressor=True), work.features(dtype)
    draw = np.random.default_rng(0).standard_normal
    net.partial_fit(draw((2, work.widths[0])).astype(dtype), draw((2, work.widths[-1])).astype(dtype))
    return repeat(lambda: net.predict(x))


def state() -> dict[str, object]:
    return {"version": sklearn.__version__}
