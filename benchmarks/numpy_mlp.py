"""A good hand-written NumPy network, the yardstick: float32 throughout, buffers reused, products left to its BLAS."""

import numpy as np
from workloads import Workload


class NumpyMLP:
    """Dense layers with ReLU or tanh between; optionally BatchNorm, dropout 0.5, L2 1e-4 and clipping by norm 1."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.random = np.random.default_rng(0)
        pairs = list(zip(work.widths[:-1], work.widths[1:], strict=True))
        self.hidden = len(pairs) - 1
        self.weights = [self._draw(n_in, n_out) for n_in, n_out in pairs]
        self.biases = [np.zeros(n_out, np.float32) for _, n_out in pairs]
        self.gammas = [np.ones(n, np.float32) for n in work.widths[1:-1]] if work.regularised else []
        self.betas = [np.zeros(n, np.float32) for n in work.widths[1:-1]] if work.regularised else []
        self.running = [(np.zeros(n, np.float32), np.ones(n, np.float32)) for n in work.widths[1:-1]]
        self.parameters = [*self.weights, *self.biases, *self.gammas, *self.betas]
        self.first = [np.zeros_like(p) for p in self.parameters]
        self.second = [np.zeros_like(p) for p in self.parameters]
        self.scratch = [np.empty_like(p) for p in self.parameters]
        self.step_number = 0

    def _draw(self, n_in: int, n_out: int) -> np.ndarray:
        return (self.random.standard_normal((n_in, n_out), dtype=np.float32) * np.sqrt(2 / n_in)).astype(np.float32)

    def _activate(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0, out=x) if self.work.activation == "relu" else np.tanh(x, out=x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        for i in range(self.hidden):
            x = x @ self.weights[i]
            x += self.biases[i]
            self._activate(x)
        return x @ self.weights[-1] + self.biases[-1]

    def _normalise(self, i: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = x.mean(0)
        x -= mean
        variance = np.einsum("ij,ij->j", x, x) / len(x)
        inverse = 1 / np.sqrt(variance + np.float32(1e-5))
        x *= inverse
        for running, batch in zip(self.running[i], (mean, variance), strict=True):
            running *= np.float32(0.9)
            running += np.float32(0.1) * batch
        return x, inverse

    def _loss_gradient(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.work.loss == "mse":
            return (z - y) * np.float32(2 / z.size)
        z -= z.max(1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(1, keepdims=True)
        z[np.arange(len(y)), y] -= 1
        z *= np.float32(1 / len(y))
        return z

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        inputs, normals, inverses, masks, outputs = [], [], [], [], []
        for i in range(self.hidden):
            inputs.append(x)
            x = x @ self.weights[i]
            x += self.biases[i]
            if self.work.regularised:
                normal, inverse = self._normalise(i, x)
                normals.append(normal)
                inverses.append(inverse)
                x = normal * self.gammas[i]
                x += self.betas[i]
            x = self._activate(x)
            outputs.append(x)
            if self.work.regularised:
                mask = self.random.random(x.shape, dtype=np.float32) >= 0.5
                masks.append(mask)
                x = x * mask
                x *= 2
        inputs.append(x)
        z = x @ self.weights[-1]
        z += self.biases[-1]
        self._backward(self._loss_gradient(z, y), inputs, normals, inverses, masks, outputs)

    def _backward(self, d, inputs, normals, inverses, masks, outputs) -> None:
        dw, db = [None] * (self.hidden + 1), [None] * (self.hidden + 1)
        dgamma, dbeta = [None] * len(self.gammas), [None] * len(self.betas)
        for i in range(self.hidden, -1, -1):
            if i < self.hidden:
                if self.work.regularised:
                    d *= masks[i]
                    d *= 2
                d *= outputs[i] > 0 if self.work.activation == "relu" else 1 - outputs[i] ** 2
                if self.work.regularised:
                    dgamma[i], dbeta[i] = np.einsum("ij,ij->j", d, normals[i]), d.sum(0)
                    m = np.float32(len(d))
                    d -= dbeta[i] / m
                    d -= normals[i] * (dgamma[i] / m)
                    d *= self.gammas[i] * inverses[i]
            dw[i], db[i] = inputs[i].T @ d, d.sum(0)
            if i:
                d = d @ self.weights[i].T
        self._update([*dw, *db, *dgamma, *dbeta])

    def _update(self, gradients: list[np.ndarray]) -> None:
        self.step_number += 1
        if self.work.regularised:
            for g, w in zip(gradients, self.weights, strict=False):
                g += np.float32(2e-4) * w
            norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
            if norm > 1:
                for g in gradients:
                    g *= np.float32(1 / norm)
        if self.work.optimizer == "sgd":
            for p, g in zip(self.parameters, gradients, strict=True):
                g *= np.float32(1e-2)
                p -= g
            return
        rate = np.float32(1e-3 / (1 - 0.9**self.step_number))
        root = np.float32(1 / np.sqrt(1 - 0.999**self.step_number))
        for p, g, m, v, t in zip(self.parameters, gradients, self.first, self.second, self.scratch, strict=True):
            m *= np.float32(0.9)
            np.multiply(g, np.float32(0.1), out=t)
            m += t
            v *= np.float32(0.999)
            np.multiply(g, g, out=t)
            t *= np.float32(0.001)
            v += t
            np.sqrt(v, out=t)
            t *= root
            t += np.float32(1e-8)
            np.divide(m, t, out=t)
            t *= rate
            p -= t
