"""Single kernels of the live instruction set beside the same operation in NumPy: float32, one thread.

Both sides write into arrays that exist already; NumPy does it in as few passes as it can. `bench_kernels.py` gives them
to pytest-benchmark, sections/kernels.py compares them with the bandwidth.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import native

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import kernel_table

M, K, N = 128, 784, 512
TANH, SIGMOID = 8, 9
NUMBERS = M * N  # in a matrix of activations


@dataclass(frozen=True)
class Kernel:
    """`prepare(table)` returns two calls to time, fastnn's and NumPy's."""

    prepare: Callable[[kernel_table.Table], tuple[Callable[[], object], Callable[[], object]]]
    elements: int
    footprint: int  # bytes of its arrays: at least once each has to come to the core


KERNELS: dict[str, Kernel] = {}


def named(name, elements, footprint):
    """Lists a kernel: elements computed, bytes of its arrays."""
    return lambda prepare: KERNELS.setdefault(name, Kernel(prepare, elements, footprint))


def sides(name: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """One call of a kernel, fastnn's and NumPy's."""
    return KERNELS[name].prepare(kernel_table.load(native.live_isa(), 32))


def real(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def empty(*shape):
    return np.zeros(shape, np.float32)


# ---- element by element, row by row ----


@named("activation_forward tanh", NUMBERS, 8 * NUMBERS)
def tanh(table):
    y, x = empty(M, N), real(M, N)
    return lambda: table.activation_forward(y, x, TANH, 0.0, x.size), lambda: np.tanh(x, out=y)


@named("activation_forward sigmoid", NUMBERS, 8 * NUMBERS)
def sigmoid(table):
    y, x = empty(M, N), real(M, N)

    def numpy_sigmoid():
        np.negative(x, out=y)
        np.exp(y, out=y)
        np.add(y, 1, out=y)
        np.reciprocal(y, out=y)

    return lambda: table.activation_forward(y, x, SIGMOID, 0.0, x.size), numpy_sigmoid


@named("dropout_forward", NUMBERS, 9 * NUMBERS)
def dropout(table):
    y, x, uniform = empty(M, N), real(M, N), empty(M, N)
    mask, kept = np.empty((M, N), np.uint8), np.empty((M, N), np.bool_)
    random, generator = kernel_table.Random(0, 0, 3, 0), np.random.default_rng(0)

    def numpy_dropout():
        generator.random(out=uniform, dtype=np.float32)
        np.greater_equal(uniform, 0.5, out=kept)
        np.multiply(x, kept, out=y)
        np.multiply(y, 2, out=y)

    return lambda: table.dropout_forward(y, mask, x, 32768, 2.0, ctypes.byref(random), 0, M, N, N), numpy_dropout


@named("loss_cross_entropy_labels", NUMBERS, 8 * NUMBERS)
def cross_entropy(table):
    dx, x, loss, weight = empty(M, N), real(M, N), np.empty(M), np.full(M, 1 / M)
    labels, rows = np.arange(M, dtype=np.int32) * 7 % N, np.arange(M)

    def numpy_cross_entropy():
        np.subtract(x, x.max(1, keepdims=True), out=dx)
        right = dx[rows, labels]
        np.exp(dx, out=dx)
        total = dx.sum(1, keepdims=True)
        np.subtract(np.log(total[:, 0]), right, out=loss)
        np.divide(dx, total * M, out=dx)
        dx[rows, labels] -= np.float32(1 / M)

    return lambda: table.loss_cross_entropy_labels(loss, dx, x, labels, weight, 0.0, M, N, N), numpy_cross_entropy


# ---- statistics, updates, features ----


@named("batchnorm_statistics", NUMBERS, 4 * NUMBERS)
def batchnorm_statistics(table):
    x, mean, variance, centred = real(M, N), empty(N), empty(N), empty(M, N)

    def numpy_statistics():
        x.mean(0, out=mean)
        np.subtract(x, mean, out=centred)
        np.einsum("ij,ij->j", centred, centred, out=variance)
        np.divide(variance, M, out=variance)

    return lambda: table.batchnorm_statistics(mean, variance, x, M, N, N), numpy_statistics


@named("square_norm", K * N, 4 * K * N)
def square_norm(table):
    g = real(K * N)
    return lambda: table.square_norm(g, None, 0.0, 0.0, g.size), lambda: float(np.vdot(g, g))


@named("adam_update", K * N, 16 * K * N)
def adam_update(table):
    p, m, v, g, t = real(K * N), empty(K * N), empty(K * N), real(K * N), empty(K * N)
    update = kernel_table.Update(learning_rate=1e-3, clip_scale=1.0, clip_min=-np.inf, clip_max=np.inf)
    update.beta1, update.beta2, update.eps, update.correction1, update.correction2 = 0.9, 0.999, 1e-8, 0.5, 0.5
    first, second = np.float32(1 - 0.9), np.float32(1 - 0.999)
    rate, root, eps = np.float32(1e-3 / 0.5), np.float32(1 / np.sqrt(0.5)), np.float32(1e-8)

    def numpy_adam():
        np.multiply(m, np.float32(0.9), out=m)
        np.multiply(g, first, out=t)
        np.add(m, t, out=m)
        np.multiply(v, np.float32(0.999), out=v)
        np.multiply(g, g, out=t)
        np.multiply(t, second, out=t)
        np.add(v, t, out=v)
        np.sqrt(v, out=t)
        np.multiply(t, root, out=t)
        np.add(t, eps, out=t)
        np.divide(m, t, out=t)
        np.multiply(t, rate, out=t)
        np.subtract(p, t, out=p)

    return lambda: table.adam_update(p, m, v, g, ctypes.byref(update), p.size), numpy_adam


@named("gather uint8", M * K, 5 * M * K)
def gather(table):
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, K), np.uint8)
    rows, batch, out = np.arange(M) * 71 % len(pixels), np.empty((M, K), np.uint8), empty(M, K)
    features, conversion = (
        kernel_table.Features(pixels.ctypes.data, kernel_table.DTYPES.index("uint8"), K, 1, len(pixels)),
        kernel_table.Conversion(1 / 255, None, None),
    )

    features.pixels = pixels  # kept alive: the structure itself has but the address

    def numpy_gather():
        np.take(pixels, rows, axis=0, out=batch, mode="clip")  # the only mode that does not copy `out`
        np.multiply(batch, np.float32(1 / 255), out=out)

    return (
        lambda: table.gather(out, ctypes.byref(features), rows, 0, ctypes.byref(conversion), M, K, K),
        numpy_gather,
    )
