"""A good hand-written NumPy network: buffers reused, products left to its BLAS, one update of one vector."""

import itertools

import numpy as np

from ..workloads import LARGEST_NORM, LEARNING_RATE, PENALTY, Product, Workload
from . import Data, Run, Training, repeat

CHUNK = 1 << 15  # numbers of an update at a time: its vectors then stay in the second cache between the passes


class NumpyMLP:
    """Dense layers with ReLU or tanh between; optionally BatchNorm, dropout 0.5, L2 and clipping by norm."""

    def __init__(self, work: Workload, dtype: str, rate: float = LEARNING_RATE, seed: int = 0) -> None:
        self.work, self.rate, self.real = work, rate, np.dtype(dtype).type
        self.random = np.random.Generator(np.random.SFC64(0))
        self.hidden = len(work.shapes) - 1
        normalized = work.widths[1:-1] if work.regularised else ()
        shapes = [*work.shapes, *((n,) for n in work.widths[1:]), *((n,) for n in normalized * 2)]
        size = sum(map(np.prod, shapes))
        # Weights come first, so that the penalty is one stretch of the vector.
        self.flat, self.flat_gradient, self.first, self.second = (np.zeros(size, dtype) for _ in range(4))
        self.scratch = np.empty(min(CHUNK, size), dtype)
        self.weight_count = sum(inputs * outputs for inputs, outputs in work.shapes)
        views, gradients = self._views(self.flat, shapes), self._views(self.flat_gradient, shapes)
        layers = self.hidden + 1
        ends = np.cumsum([0, layers, layers, len(normalized), len(normalized)])
        self.weights, self.biases, self.gammas, self.betas = (views[a:b] for a, b in itertools.pairwise(ends))
        self.dw, self.db, self.dgamma, self.dbeta = (gradients[a:b] for a, b in itertools.pairwise(ends))
        for view, (weight, _) in zip(self.weights, work.weights(dtype, seed), strict=True):
            view[...] = weight
        for gamma in self.gammas:
            gamma[...] = 1
        self.running = [(np.zeros(n, dtype), np.ones(n, dtype)) for n in normalized]
        self.outputs = [np.empty((work.batch, n), dtype) for n in work.widths[1:]]
        self.normals = [np.empty_like(output) for output in self.outputs[: len(normalized)]]
        self.slopes = [np.empty_like(output) for output in self.outputs[:-1]]
        self.deltas = [np.empty_like(output) for output in self.outputs[:-1]]
        self.rows = np.arange(work.batch)
        self.step_number = 0

    @staticmethod
    def _views(vector: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        ends = np.cumsum([0, *map(np.prod, shapes)])
        return [vector[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]

    def _activate(self, x: np.ndarray) -> None:
        if self.work.activation == "relu":
            np.maximum(x, 0, out=x)
        else:
            np.tanh(x, out=x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight
            x += bias
            if i < self.hidden:
                self._activate(x)
        return x

    def _normalise(self, i: int, x: np.ndarray) -> np.ndarray:
        """x becomes gamma xhat + beta; returns 1 / sqrt(var + eps)."""
        normal, (running_mean, running_variance) = self.normals[i], self.running[i]
        mean = x.mean(0)
        np.subtract(x, mean, out=normal)
        variance = np.einsum("ij,ij->j", normal, normal)
        variance /= self.real(len(x))
        inverse = 1 / np.sqrt(variance + self.real(1e-5))
        normal *= inverse
        np.multiply(normal, self.gammas[i], out=x)
        x += self.betas[i]
        for running, batch in ((running_mean, mean), (running_variance, variance)):
            running *= self.real(0.9)
            batch *= self.real(0.1)
            running += batch
        return inverse

    def _loss_gradient(self, z: np.ndarray, y: np.ndarray) -> None:
        """z becomes the gradient of the mean loss."""
        if self.work.loss == "mse":
            z -= y
            z *= self.real(2 / z.size)
            return
        z -= z.max(1, keepdims=True)
        np.exp(z, out=z)
        z *= 1 / (z.sum(1, keepdims=True) * self.real(len(z)))
        z[self.rows, y] -= self.real(1 / len(z))

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        inputs, inverses = [x], []
        for i, output in enumerate(self.outputs):
            np.matmul(inputs[-1], self.weights[i], out=output)
            output += self.biases[i]
            if i == self.hidden:
                break
            if self.work.regularised:
                inverses.append(self._normalise(i, output))
            self._activate(output)
            slope = self.slopes[i]
            if self.work.activation == "relu":
                np.greater(output, 0, out=slope, casting="unsafe")
            else:
                np.multiply(output, output, out=slope)
                np.subtract(1, slope, out=slope)
            if self.work.regularised:
                kept = np.frombuffer(self.random.bytes(output.size), np.int8).reshape(output.shape) >= 0
                factor = np.multiply(kept, self.real(2), dtype=output.dtype)
                output *= factor
                slope *= factor
            inputs.append(output)
        self._loss_gradient(self.outputs[-1], y)
        self._backward(inputs, inverses)
        self._update()

    def _backward(self, inputs: list[np.ndarray], inverses: list[np.ndarray]) -> None:
        delta = self.outputs[-1]
        for i in range(self.hidden, -1, -1):
            np.matmul(inputs[i].T, delta, out=self.dw[i])
            delta.sum(0, out=self.db[i])
            if i == 0:
                return
            delta = np.matmul(delta, self.weights[i].T, out=self.deltas[i - 1])
            delta *= self.slopes[i - 1]
            if self.work.regularised:
                self._backward_normalise(i - 1, delta, inverses[i - 1])

    def _backward_normalise(self, i: int, delta: np.ndarray, inverse: np.ndarray) -> None:
        normal, rows = self.normals[i], self.real(len(delta))
        np.einsum("ij,ij->j", delta, normal, out=self.dgamma[i])
        delta.sum(0, out=self.dbeta[i])
        delta -= self.dbeta[i] / rows
        normal *= self.dgamma[i] / rows
        delta -= normal
        delta *= self.gammas[i] * inverse

    def _update(self) -> None:
        self.step_number += 1
        gradient = self.flat_gradient
        if self.work.regularised:
            weights = self.flat[: self.weight_count]
            for start in range(0, self.weight_count, CHUNK):
                part = weights[start : start + CHUNK]
                gradient[start : start + len(part)] += np.multiply(
                    part, self.real(2 * PENALTY), out=self.scratch[: len(part)]
                )
            norm = float(np.vdot(gradient, gradient)) ** 0.5
            if norm > LARGEST_NORM:
                gradient *= self.real(LARGEST_NORM / norm)
        if self.work.optimizer == "sgd":
            gradient *= self.real(self.rate)
            self.flat -= gradient
            return
        rate = self.real(self.rate / (1 - 0.9**self.step_number))
        root = self.real(1 / (1 - 0.999**self.step_number) ** 0.5)
        for start in range(0, gradient.size, CHUNK):
            part = slice(start, start + CHUNK)
            p, g, m, v = self.flat[part], gradient[part], self.first[part], self.second[part]
            t = self.scratch[: p.size]
            m *= self.real(0.9)
            np.multiply(g, self.real(0.1), out=t)
            m += t
            v *= self.real(0.999)
            g *= g
            g *= self.real(0.001)
            v += g
            np.sqrt(v, out=t)
            t *= root
            t += self.real(1e-8)
            np.divide(m, t, out=t)
            t *= rate
            p -= t


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    x, y = data
    net = NumpyMLP(work, x.dtype, rate, seed)
    xb, yb = np.empty_like(x[: work.batch]), np.empty_like(y[: work.batch])
    batches = work.batches(np.random.default_rng(seed).permutation)

    def run(steps: int) -> None:
        for rows in itertools.islice(batches, steps):
            if work.full_batch:
                net.step(x, y)
            else:  # "clip" is the only mode that does not copy `out`
                net.step(np.take(x, rows, 0, out=xb, mode="clip"), np.take(y, rows, 0, out=yb, mode="clip"))

    return run, net.predict


def predict(work: Workload, threads: int, dtype: str) -> Run:
    net, x = NumpyMLP(work, dtype), work.features(dtype)
    return repeat(lambda: net.predict(x))


def product(product: Product, threads: int, dtype: str) -> Run:
    a, b, out = operands(product, dtype)
    return repeat(lambda: np.matmul(a, b, out=out))


def operands(product: Product, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b, out as they lie in a training step: contiguous, dW and dX with one operand seen transposed."""
    draw = np.random.default_rng(0).standard_normal
    m, n, k = product.m, product.n, product.k
    a = draw((k, m)).astype(dtype).T if product.kind == "dW" else draw((m, k)).astype(dtype)
    b = draw((n, k)).astype(dtype).T if product.kind == "dX" else draw((k, n)).astype(dtype)
    return a, b, np.empty((m, n), dtype)


def kernel(name: str, threads: int, dtype: str) -> Run:
    from ..kernels import sides

    return repeat(sides(name)[1])


def state() -> dict[str, object]:
    return {"version": np.__version__}
