"""What is timed: training steps, predictions and the products they are made of, the same for every engine.

The data are random numbers of the right shape. FLOPs and bytes are what the floors are made of: a multiply-add is two
FLOPs, and only the products count.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# So small that a long measurement does not change what is computed: a net that has learnt its data by heart has
# denormal gradients.
LEARNING_RATE = 1e-6
PENALTY = 1e-4
LARGEST_NORM = 1.0


@dataclass(frozen=True)
class Workload:
    """Layers `widths` from inputs to outputs, `batch` rows at a time, optimizer and loss by name."""

    name: str
    widths: tuple[int, ...]
    batch: int
    loss: str = "cross_entropy"
    optimizer: str = "adam"
    activation: str = "relu"
    regularised: bool = False  # BatchNorm, dropout 0.5, L2 and clipping by norm
    rows: int = 10_000

    @property
    def full_batch(self) -> bool:
        return self.batch == self.rows

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the Dense layers."""
        return list(itertools.pairwise(self.widths))

    @property
    def parameters(self) -> int:
        """Numbers in weights and biases."""
        return sum((inputs + 1) * outputs for inputs, outputs in self.shapes)

    @property
    def prediction_flops(self) -> int:
        return sum(2 * self.batch * inputs * outputs for inputs, outputs in self.shapes)

    @property
    def step_flops(self) -> int:
        """Forward, dW and dX; the first layer needs no dX."""
        first_inputs, first_outputs = self.shapes[0]
        return 3 * self.prediction_flops - 2 * self.batch * first_inputs * first_outputs

    @property
    def hidden_values(self) -> int:
        """Outputs of the hidden layers in one pass."""
        return self.batch * sum(self.widths[1:-1])

    def data(self, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
        """x (rows, inputs); y labels for cross-entropy, values (rows, outputs) otherwise."""
        generator = np.random.default_rng(0)
        x = generator.standard_normal((self.rows, self.widths[0])).astype(dtype)
        if self.loss == "cross_entropy":
            return x, generator.integers(0, self.widths[-1], self.rows)
        return x, generator.standard_normal((self.rows, self.widths[-1])).astype(dtype)

    def features(self, dtype: str = "float32") -> np.ndarray:
        """The rows of one prediction."""
        return np.random.default_rng(0).standard_normal((self.batch, self.widths[0])).astype(dtype)

    def weights(self, dtype: str = "float32", seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """(weight (inputs, outputs), bias) per Dense layer, by He's rule: where the engines start."""
        generator = np.random.default_rng(seed)
        return [
            ((generator.standard_normal(shape) * (2 / shape[0]) ** 0.5).astype(dtype), np.zeros(shape[1], dtype))
            for shape in self.shapes
        ]

    def stretches(self, steps: int) -> Iterator[tuple[slice, int]]:
        """`steps` steps as (rows, epochs) for an engine that shuffles and batches by itself."""
        per_epoch = self.rows // self.batch
        epochs, rest = divmod(steps, per_epoch)
        if epochs:
            yield slice(0, per_epoch * self.batch), epochs
        if rest:
            # Elsewhere each time: the data set lies in memory, not its last few rows in a cache.
            start = random.randrange(self.rows - rest * self.batch + 1)
            yield slice(start, start + rest * self.batch), 1

    def batches(self, permutation: Callable[[int], Any]) -> Iterator[Any]:
        """Row numbers of shuffled batches without end; slice(None) where the batch is the whole data set.

        `permutation(n)` is the engine's own, of whatever type its gather takes.
        """
        while self.full_batch:
            yield slice(None)
        while True:
            order = permutation(self.rows)
            for start in range(0, self.rows - self.batch + 1, self.batch):
                yield order[start : start + self.batch]


@dataclass(frozen=True)
class Product:
    """out (m,n) = a (m,k) b (k,n) as a training step needs it.

    kind "forward": y = x w; "dW": dw = x' dy, where x' is x seen transposed; "dX": dx = dy w'.
    """

    work: str
    kind: str
    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.work} {self.kind} {self.m}x{self.n}x{self.k}"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True)
class Many:
    """`members` nets of one workload, each from its own weights; a step is an epoch of all of them."""

    name: str
    members: int
    work: Workload


def products_of(work: Workload) -> list[Product]:
    found = []
    for layer, (inputs, outputs) in enumerate(work.shapes):
        found.append(Product(work.name, "forward", work.batch, outputs, inputs))
        found.append(Product(work.name, "dW", inputs, outputs, work.batch))
        if layer > 0:
            found.append(Product(work.name, "dX", work.batch, inputs, outputs))
    return list(dict.fromkeys(found))


WORKLOADS = [
    Workload("tiny", (8, 32, 32, 1), 32, loss="mse"),
    Workload("tabular", (54, 128, 128, 7), 128),
    Workload("mnist", (784, 300, 100, 10), 32, optimizer="sgd"),
    Workload("lecture", (784, 512, 256, 10), 128, regularised=True),
    Workload("large", (784, 1024, 1024, 10), 512),
    Workload("chains", (4, 32, 16, 4), 10_000, loss="mse", activation="tanh"),
    Workload("sgd1", (784, 300, 100, 10), 1, optimizer="sgd"),
]

# From far too small for two threads to large enough.
SIZES = [
    Workload(f"width {width} batch {batch}", (width,) * 4, batch) for width in (8, 32, 128) for batch in (8, 64, 512)
]

# Two hidden layers as wide as the inputs, ten classes. A batch is never the whole data set; that stays below 64 MB.
GRID_WIDTHS = tuple(2**i for i in range(3, 13))
GRID_BATCHES = tuple(2**i for i in range(13))


def grid_cell(width: int, batch: int) -> Workload:
    return Workload(f"{width} wide {batch} rows", (width, width, width, 10), batch, rows=max(2 * batch, 2048))


GRID = [grid_cell(width, batch) for width in GRID_WIDTHS for batch in GRID_BATCHES]

PREDICTIONS = [
    Workload("1 row of 16-64-64-4", (16, 64, 64, 4), 1),
    Workload("1 row of 784-512-512-10", (784, 512, 512, 10), 1),
    Workload("64 rows of 784-512-512-10", (784, 512, 512, 10), 64),
    Workload("10000 rows of 784-512-512-10", (784, 512, 512, 10), 10_000),
]

MANY = [Many("64 nets 8-32-32-1", 64, Workload("one of many", (8, 32, 32, 1), 32, loss="mse", rows=2000))]

PRODUCTS = [product for work in WORKLOADS for product in products_of(work)]

BY_NAME = {entry.name: entry for entry in (*WORKLOADS, *SIZES, *GRID, *PREDICTIONS, *MANY, *PRODUCTS)}
