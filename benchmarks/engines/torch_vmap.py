"""PyTorch's nets of one shape, stacked: vmap over the gradient, one fused optimizer over the stacks."""

import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from ..workloads import LEARNING_RATE, Many
from . import Run
from .torch_eager import LOSSES, build, optimizer, state, use

__all__ = ["many", "state"]


def many(many: Many, threads: int, dtype: str) -> Run:
    use(threads)
    work = many.work
    x, y = map(torch.from_numpy, work.data(dtype))
    nets = [build(work, x.dtype, seed) for seed in range(many.members)]
    parameters, _ = stack_module_state(nets)
    update = optimizer(work, Stack(parameters), LEARNING_RATE)

    def loss(parameters, xb, yb):
        return LOSSES[work.loss](functional_call(nets[0], parameters, (xb,)), yb)

    gradients = vmap(grad(loss))

    def run(epochs: int) -> None:
        for _ in range(epochs):
            order = torch.stack([torch.randperm(work.rows) for _ in nets])
            for start in range(0, work.rows - work.batch + 1, work.batch):
                rows = order[:, start : start + work.batch]
                for name, gradient in gradients(parameters, x[rows], y[rows]).items():
                    parameters[name].grad = gradient
                update.step()

    return run


class Stack(torch.nn.Module):
    """What has the stacked parameters, for the optimizer."""

    def __init__(self, parameters: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._stacked = parameters

    def parameters(self, recurse: bool = True):
        return iter(self._stacked.values())
