"""What no engine can beat on one core: the bare arithmetic in registers, or the bare reading of the parameters.

Being an engine like the others, it is timed in the same rounds: a machine that slows down lowers the floor with it.
"""

import numpy as np

from .. import native
from ..workloads import Product, Workload
from . import Data, Run, Training, UnsupportedError


def check(threads: int) -> None:
    if threads > 1:
        raise UnsupportedError("the floor is that of one core.")


def reading(size: int, passes: int) -> Run:
    data = native.readable(size)
    return lambda calls: native.read(data, passes * calls)


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    return steps_of(work, threads, data[0].dtype.name), None


def steps_of(work: Workload, threads: int, dtype: str) -> Run:
    check(threads)
    size = np.dtype(dtype).itemsize
    if work.batch == 1:
        # One row does two FLOPs per weight: read for the output, read and written by the update.
        return reading(work.parameters * size, 3)
    if work.activation != "tanh":
        return lambda steps: native.multiply_add(steps * work.step_flops, dtype)
    x = native.matrix(1, work.hidden_values, dtype)
    y = np.empty_like(x)
    isa, number = native.live_isa().encode(), {"float32": 0, "float64": 1}[dtype]

    def run(steps: int) -> None:
        native.multiply_add(steps * work.step_flops, dtype)
        native.call("fnn_bench_tanh", isa, number, steps, y, x, work.hidden_values)

    return run


def predict(work: Workload, threads: int, dtype: str) -> Run:
    check(threads)
    if work.batch == 1:
        return reading(work.parameters * np.dtype(dtype).itemsize, 1)
    return lambda calls: native.multiply_add(calls * work.prediction_flops, dtype)


def product(product: Product, threads: int, dtype: str) -> Run:
    check(threads)
    return lambda calls: native.multiply_add(calls * product.flops, dtype)


def kernel(name: str, threads: int, dtype: str) -> Run:
    from ..kernels import KERNELS

    return reading(KERNELS[name].footprint, 1)


def speed(name: str, threads: int, dtype: str) -> Run:
    """One GFLOP in registers, or one GB read from as many bytes as `name` says."""
    if name == "fma":
        return lambda calls: native.multiply_add(calls * 10**9, dtype)
    data = native.readable(int(name))
    return lambda calls: native.read(data, max(1, calls * 10**9 // data.nbytes))
