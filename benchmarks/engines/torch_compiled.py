"""PyTorch, compiled: gather, forward, backward and update are one graph, which takes a third of the time of compiling
the model alone where a step is small. "max-autotune" is no faster: its templates are for GPUs."""

import itertools

import torch
from torch.nn import functional

from ..workloads import LARGEST_NORM, PENALTY, Workload
from . import Data, Run, Training
from .torch_eager import LOSSES, build, state, use

__all__ = ["predict", "state", "training"]


def initial(work: Workload, dtype: torch.dtype, seed: int) -> dict[str, list[torch.Tensor]]:
    """Trained tensors by role, a list with one per layer; weights (outputs, inputs)."""
    pairs = [tuple(map(torch.from_numpy, pair)) for pair in work.weights(seed=seed)]
    normalized = work.widths[1:-1] if work.regularised else ()
    return {
        "weight": [weight.T.contiguous().to(dtype) for weight, _ in pairs],
        "bias": [bias.to(dtype) for _, bias in pairs],
        "gamma": [torch.ones(n, dtype=dtype) for n in normalized],
        "beta": [torch.zeros(n, dtype=dtype) for n in normalized],
    }


def forward(work: Workload, p: dict[str, list[torch.Tensor]], h: torch.Tensor):
    """Outputs in training mode, and (mean, variance) of every normalised layer."""
    moments = []
    for i, (weight, bias) in enumerate(zip(p["weight"], p["bias"], strict=True)):
        h = functional.linear(h, weight, bias)
        if i == len(p["weight"]) - 1:
            return h, moments
        if work.regularised:
            variance, mean = torch.var_mean(h, 0, correction=0)
            h = (h - mean) * torch.rsqrt(variance + 1e-5) * p["gamma"][i] + p["beta"][i]
            moments.append((mean, variance))
        h = torch.relu(h) if work.activation == "relu" else torch.tanh(h)
        if work.regularised:
            h = functional.dropout(h, 0.5)
    raise ValueError("a net needs a Dense layer.")


def compiled_step(work: Workload, rate: float):
    def loss(p, x, y):
        outputs, moments = forward(work, p, x)
        return LOSSES[work.loss](outputs, y), moments

    def step(p, first, second, running, count, x, y, rows):
        if rows is not None:
            x, y = x.index_select(0, rows), y.index_select(0, rows)
        tree, moments = torch.func.grad(loss, has_aux=True)(p, x, y)
        for (mean, variance), (batch_mean, batch_variance) in zip(running, moments, strict=True):
            mean.lerp_(batch_mean, 0.1)
            variance.lerp_(batch_variance, 0.1)
        if work.regularised:
            tree["weight"] = [g + 2 * PENALTY * w for g, w in zip(tree["weight"], p["weight"], strict=True)]
        gradients = [gradient for role in p for gradient in tree[role]]
        if work.regularised:
            norm = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
            scale = torch.clamp(LARGEST_NORM / norm, max=1.0)
            gradients = [gradient * scale for gradient in gradients]
        parameters = [parameter for role in p for parameter in p[role]]
        if work.optimizer == "sgd":
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=rate)
            return
        count.add_(1)
        size, root = rate / (1 - 0.9**count), torch.rsqrt(1 - 0.999**count)
        for parameter, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
            m.lerp_(gradient, 0.1)
            v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter.sub_(size * m / (v.sqrt() * root + 1e-8))

    return torch.compile(step, fullgraph=True)


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    use(threads)
    torch.manual_seed(seed)
    x, y = map(torch.from_numpy, data)
    p = initial(work, x.dtype, seed)
    parameters = [parameter for role in p for parameter in p[role]]
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    running = [(torch.zeros_like(gamma), torch.ones_like(gamma)) for gamma in p["gamma"]]
    count, step, batches = torch.zeros((), dtype=x.dtype), compiled_step(work, rate), work.batches(torch.randperm)

    def run(steps: int) -> None:
        with torch.no_grad():
            for rows in itertools.islice(batches, steps):
                step(p, first, second, running, count, x, y, None if work.full_batch else rows)

    if work.regularised:
        return run, None
    return run, lambda rows: forward(work, p, torch.from_numpy(rows))[0].numpy()


def predict(work: Workload, threads: int, dtype: str) -> Run:
    use(threads)
    x = torch.from_numpy(work.features(dtype))
    net = torch.compile(build(work, x.dtype, 0).eval())

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                net(x)

    return run
