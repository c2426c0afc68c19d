"""Time to a test accuracy on real data: the same recipe for every engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .workloads import Workload


@dataclass(frozen=True)
class Task:
    """`load(folder)` returns x, y, x_test, y_test: float32 features and integer labels."""

    title: str
    file: str
    work: Workload
    rate: float
    accuracy: float
    load: Callable[[Path], tuple[np.ndarray, ...]]
    most_epochs: int = 60


def mnist(path: Path) -> tuple[np.ndarray, ...]:
    with np.load(path) as data:
        x, x_test = (data[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test"))
        return x, data["y_train"].astype(np.int64), x_test, data["y_test"].astype(np.int64)


def covertype(path: Path) -> tuple[np.ndarray, ...]:
    """Standardized; a fifth of the rows, drawn at random, is the test set."""
    with np.load(path) as data:
        x, y = data["X"].astype(np.float32), data["y"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    test, train = np.split(order, [len(x) // 5])
    mean, deviation = x[train].mean(0), x[train].std(0)
    x = (x - mean) / np.where(deviation == 0, 1, deviation)
    y -= y.min()
    return x[train], y[train], x[test], y[test]


# The libraries' default rate of Adam; Keras's default batch, and a larger one for the larger set.
TASKS = {
    "MNIST": Task("MNIST", "mnist.npz", Workload("", (784, 300, 100, 10), 32), 1e-3, 0.98, mnist),
    "Covertype": Task("Covertype", "covtype.npz", Workload("", (54, 256, 128, 7), 256), 1e-3, 0.88, covertype),
}


def learn(training: Callable[..., Any], task: Task, folder: str, threads: int, seed: int) -> dict[str, Any]:
    x, y, x_test, y_test = task.load(Path(folder) / task.file)
    work = replace(task.work, rows=len(x))
    run, predict = training(work, (x, y), task.rate, threads, seed)
    # What is compiled or allocated at the first call is not learning.
    warm, warm_predict = training(work, (x, y), task.rate, threads, seed)
    warm(work.rows // work.batch)
    warm_predict(x_test)
    accuracies: list[float] = []
    start = time.perf_counter()
    while len(accuracies) < task.most_epochs and max(accuracies, default=0) < task.accuracy:
        run(work.rows // work.batch)
        accuracies.append(float(np.mean(np.argmax(predict(x_test), 1) == y_test)))
    seconds = time.perf_counter() - start
    reached = accuracies[-1] >= task.accuracy
    return {"seconds": seconds, "epochs": len(accuracies), "accuracy": accuracies[-1], "reached": reached}
