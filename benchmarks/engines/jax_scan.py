"""JAX with `lax.scan`: many steps are one call, so that Python counts once per block as it does for fastnn's `fit`."""

from ..workloads import Workload
from . import Data, Training, jax_jit

state = jax_jit.state


def training(work: Workload, data: Data, rate: float, threads: int, seed: int) -> Training:
    return jax_jit.training(work, data, rate, threads, seed, scan=True)
