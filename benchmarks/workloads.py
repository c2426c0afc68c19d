"""The workloads that are timed: layers, batch, recipe; random data of the right shape, the same for every engine."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Workload:
    """One training step: `widths` from inputs to outputs, `batch` rows, optimizer and loss by name."""

    name: str
    widths: tuple[int, ...]
    batch: int
    loss: str = "cross_entropy"
    optimizer: str = "adam"
    activation: str = "relu"
    regularised: bool = False  # BatchNorm, dropout 0.5, L2 and clipping by norm
    rows: int = 10_000

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (rows, inputs) float32; y labels for cross-entropy, values (rows, outputs) otherwise."""
        random = np.random.default_rng(0)
        x = random.standard_normal((self.rows, self.widths[0]), dtype=np.float32)
        if self.loss == "cross_entropy":
            return x, random.integers(0, self.widths[-1], self.rows)
        return x, random.standard_normal((self.rows, self.widths[-1]), dtype=np.float32)


WORKLOADS = [
    Workload("tiny", (8, 32, 32, 1), 32, loss="mse"),
    Workload("tabular", (54, 128, 128, 7), 128),
    Workload("mnist", (784, 300, 100, 10), 32, optimizer="sgd"),
    Workload("lecture", (784, 512, 256, 10), 128, regularised=True),
    Workload("large", (784, 1024, 1024, 10), 512),
    Workload("chains", (4, 32, 16, 4), 10_000, loss="mse", activation="tanh"),
    Workload("sgd1", (784, 300, 100, 10), 1, optimizer="sgd"),
]

PREDICTIONS = [
    ((16, 64, 64, 4), 1),
    ((784, 512, 512, 10), 1),
    ((784, 512, 512, 10), 64),
    ((784, 512, 512, 10), 10_000),
]
