"""Single kernels of the best instruction set beside the same operation in NumPy: float32, one thread, in cache."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import kernel_table

M, K, N = 128, 784, 512
RELU, TANH, SIGMOID = 1, 8, 9


@pytest.fixture(scope="module")
def table():
    tables = [kernel_table.load(isa, 32) for isa in kernel_table.ISAS]
    return [t for t in tables if t is not None][-1]


def real(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def products(table):
    x, w, dy, bias, y = real(M, K), real(K, N), real(M, N), real(N), np.empty((M, N), np.float32)
    wt, dw, dx = np.ascontiguousarray(w.T), np.empty((K, N), np.float32), np.empty((M, K), np.float32)
    yield (
        "dense_forward 128x512x784",
        lambda: table.dense_forward(y, x, w, bias, RELU, 0.0, M, N, K, N, K, N),
        lambda: np.maximum(np.add(np.matmul(x, w, out=y), bias, out=y), 0, out=y),
    )
    yield (
        "dense_backward_weights 784x512x128",
        lambda: table.dense_backward_weights(dw, x, dy, 0, K, N, M, N, K, N),
        lambda: np.matmul(x.T, dy, out=dw),
    )
    yield (
        "dense_backward_input 128x784x512",
        lambda: table.dense_backward_input(dx, dy, wt, M, K, N, K, N, K),
        lambda: np.matmul(dy, wt, out=dx),
    )
    yield (
        "row times matrix 1x512x784",
        lambda: table.dense_forward(y, x, w, bias, RELU, 0.0, 1, N, K, N, K, N),
        lambda: np.maximum(x[:1] @ w + bias, 0),
    )


def elementwise(table):
    x, y, count = real(M, N), np.empty((M, N), np.float32), M * N
    functions = {
        "tanh": (TANH, lambda: np.tanh(x, out=y)),
        "sigmoid": (SIGMOID, lambda: np.divide(1, 1 + np.exp(-x), out=y)),
    }
    for name, (number, numpy_form) in functions.items():
        yield name, lambda number=number: table.activation_forward(y, x, number, 0.0, count), numpy_form
    mask, random = np.empty((M, N), np.uint8), kernel_table.Random(0, 0, 3, 0)
    generator = np.random.default_rng(0)
    yield (
        "dropout",
        lambda: table.dropout_forward(y, mask, x, 32768, 2.0, ctypes.byref(random), 0, M, N, N),
        lambda: np.multiply(x * (generator.random(x.shape, dtype=np.float32) >= 0.5), 2, out=y),
    )
    labels, weight, loss = np.zeros(M, np.int32), np.full(M, 1 / M), np.empty(M)
    yield (
        "softmax cross-entropy",
        lambda: table.loss_cross_entropy_labels(loss, y, x, labels, weight, 0.0, M, N, N),
        lambda: np.exp(x - x.max(1, keepdims=True)) / np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True),
    )


def statistics_and_updates(table):
    x, mean, variance, n = real(M, N), np.empty(N, np.float32), np.empty(N, np.float32), K * N
    yield (
        "batchnorm_statistics",
        lambda: table.batchnorm_statistics(mean, variance, x, M, N, N),
        lambda: (x.mean(0, out=mean), x.var(0, out=variance)),
    )
    p, g, m, v = (real(n) for _ in range(4))
    np.abs(v, out=v)
    update = kernel_table.Update(learning_rate=1e-3, clip_scale=1.0, clip_min=-np.inf, clip_max=np.inf)
    update.beta1, update.beta2, update.eps, update.correction1, update.correction2 = 0.9, 0.999, 1e-8, 0.5, 0.5

    def numpy_adam():
        np.add(0.9 * m, np.float32(0.1) * g, out=m)
        np.add(0.999 * v, np.float32(0.001) * g * g, out=v)
        np.subtract(p, np.float32(2e-3) * m / (np.sqrt(v) * np.float32(1.4) + np.float32(1e-8)), out=p)

    yield "adam_update", lambda: table.adam_update(p, m, v, g, ctypes.byref(update), n), numpy_adam
    yield "square_norm", lambda: table.square_norm(g, None, 0.0, 0.0, n), lambda: float(np.vdot(g, g))
    pixels, rows = np.random.default_rng(0).integers(0, 256, (10_000, K), np.uint8), np.arange(M) * 71 % 10_000
    out, conversion = np.empty((M, K), np.float32), kernel_table.Conversion(1 / 255, None, None)
    features = kernel_table.Features(pixels.ctypes.data, 2, K, 1, len(pixels))
    yield (
        "gather uint8",
        lambda: table.gather(out, ctypes.byref(features), rows, 0, ctypes.byref(conversion), M, K, K),
        lambda: np.multiply(pixels[rows], np.float32(1 / 255), out=out),
    )


@pytest.mark.parametrize("family", [products, elementwise, statistics_and_updates], ids=lambda family: family.__name__)
@pytest.mark.parametrize("engine", ["fastnn", "numpy"])
@pytest.mark.parametrize("index", range(4))
def test_kernel(benchmark, table, family, engine, index):
    name, fastnn_form, numpy_form = list(family(table))[index]
    benchmark.group = name
    benchmark(fastnn_form if engine == "fastnn" else numpy_form)
