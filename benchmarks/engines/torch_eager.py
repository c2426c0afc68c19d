"""PyTorch, eager: resident tensors, fused optimizers (faster here than foreach, which beats the plain loop)."""

import itertools

import numpy as np
import torch
from torch import nn

from ..workloads import LARGEST_NORM, LEARNING_RATE, PENALTY, Many, Product, Workload
from . import Data, Run, Training, repeat
from .numpy_mlp import operands

LOSSES = {"mse": nn.functional.mse_loss, "cross_entropy": nn.functional.cross_entropy}


def use(threads: int) -> None:
    torch.set_num_threads(threads)


def build(work: Workload, dtype: torch.dtype, seed: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in work.shapes:
        layers.append(nn.Linear(inputs, outputs, dtype=dtype))
        if work.regularised:
            layers.append(nn.BatchNorm1d(outputs, dtype=dtype))
        layers.append(nn.ReLU() if work.activation == "relu" else nn.Tanh())
        if work.regularised:
            layers.append(nn.Dropout(0.5))
    last = max(place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    net = nn.Sequential(*layers[: last + 1])
    dense = [layer for layer in net if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(dense, work.weights(seed=seed), strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
    return net


def optimizer(work: Workload, net: nn.Module, rate: float) -> torch.optim.Optimizer:
    kind = torch.optim.SGD if work.optimizer == "sgd" else torch.optim.Adam
    return kind(net.parameters(), lr=rate, fused=True)


def predictor(net: nn.Module):
    def predict(x: np.ndarray) -> np.ndarray:
        net.eval()
        with torch.inference_mode():
            outputs = net(torch.from_numpy(x)).numpy()
        net.train()
        return outputs

    return predict


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    use(threads)
    torch.manual_seed(seed)
    x, y = map(torch.from_numpy, data)
    net = build(work, x.dtype, seed)
    weights = [layer.weight for layer in net if isinstance(layer, nn.Linear)]
    update, loss = optimizer(work, net, rate), LOSSES[work.loss]
    batches = work.batches(torch.randperm)

    def run(steps: int) -> None:
        for rows in itertools.islice(batches, steps):
            xb, yb = (x, y) if work.full_batch else (x.index_select(0, rows), y.index_select(0, rows))
            update.zero_grad(set_to_none=True)
            loss(net(xb), yb).backward()
            if work.regularised:
                for weight in weights:  # before clipping, where weight_decay would come after it
                    weight.grad.add_(weight.detach(), alpha=2 * PENALTY)
                nn.utils.clip_grad_norm_(net.parameters(), LARGEST_NORM)
            update.step()

    return run, predictor(net)


def many(many: Many, threads: int, dtype: str) -> Run:
    """A loop over the nets."""
    work, data = many.work, many.work.data(dtype)
    runs = [training(work, data, LEARNING_RATE, threads, seed)[0] for seed in range(many.members)]

    def run(epochs: int) -> None:
        for train in runs:
            train(epochs * (work.rows // work.batch))

    return run


def predict(work: Workload, threads: int, dtype: str) -> Run:
    use(threads)
    x = torch.from_numpy(work.features(dtype))
    net = build(work, x.dtype, 0).eval()

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                net(x)

    return run


def product(product: Product, threads: int, dtype: str) -> Run:
    use(threads)
    a, b, out = map(torch.from_numpy, operands(product, dtype))
    return repeat(lambda: torch.mm(a, b, out=out))


def state() -> dict[str, object]:
    return {"version": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
