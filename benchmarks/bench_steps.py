"""Training steps and predictions, fastnn beside hand-written NumPy, one thread each.

`make bench` runs this with pytest-benchmark; rows of one group are to be compared, absolute times are this machine's.
NumPy's BLAS is held to one thread by OPENBLAS_NUM_THREADS=1 in the make verb.
"""

import numpy as np
import pytest
from numpy_mlp import NumpyMLP
from workloads import PREDICTIONS, WORKLOADS, Workload

import fastnn as fn

STEPS = 20  # per timed call: what one fit does many times without returning to Python


def fastnn_net(work: Workload) -> fn.Sequential:
    layers: list = []
    for width in work.widths[1:-1]:
        layers.append(fn.Dense(width))
        if work.regularised:
            layers.append(fn.BatchNorm())
        layers.append(fn.ReLU() if work.activation == "relu" else fn.Tanh())
        if work.regularised:
            layers.append(fn.Dropout(0.5))
    layers.append(fn.Dense(work.widths[-1]))
    return fn.Sequential(layers, input_size=work.widths[0])


def fastnn_steps(work: Workload):
    trainer = fn.Trainer(
        fastnn_net(work),
        loss=work.loss,
        optimizer=fn.SGD(1e-2) if work.optimizer == "sgd" else fn.Adam(1e-3),
        regularizer=fn.L2(1e-4) if work.regularised else None,
        clip=fn.ClipNorm(1.0) if work.regularised else None,
        metrics=(),
        batch_size=work.batch,
        n_threads=1,
    )
    x, y = work.data()
    n = work.batch * STEPS
    rows = np.resize(np.arange(work.rows), n) if n > work.rows else np.arange(n)
    x, y = x[rows], y[rows]
    trainer.fit(x, y, epochs=1, verbose=0)
    return lambda: trainer.fit(x, y, epochs=1, verbose=0)


def numpy_steps(work: Workload):
    net = NumpyMLP(work)
    x, y = work.data()
    random = np.random.default_rng(1)

    def run() -> None:
        for _ in range(STEPS):
            rows = random.integers(0, work.rows, work.batch)
            net.step(x[rows], y[rows])

    return run


@pytest.mark.parametrize("engine", [fastnn_steps, numpy_steps], ids=["fastnn", "numpy"])
@pytest.mark.parametrize("work", WORKLOADS, ids=lambda work: work.name)
def test_training(benchmark, work: Workload, engine) -> None:
    benchmark.group = f"{STEPS} training steps: {work.name}"
    benchmark.pedantic(engine(work), rounds=7, warmup_rounds=1)


@pytest.mark.parametrize("engine", ["fastnn", "numpy"])
@pytest.mark.parametrize(("widths", "batch"), PREDICTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_prediction(benchmark, widths, batch, engine) -> None:
    work = Workload("predict", widths, batch)
    x, _ = work.data()
    x = x[:batch]
    benchmark.group = f"predict {batch} rows of {widths}"
    if engine == "fastnn":
        benchmark(fastnn_net(work).predict, x, n_threads=1)
    else:
        benchmark(NumpyMLP(work).predict, x)
