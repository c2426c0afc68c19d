"""Who is timed: one module per engine, named as in ENGINES. What one cannot do, its module leaves out.

    training(work, data, rate, threads, seed) -> (run, predict)
        run(steps) trains on shuffled rows of data = (x, y), their gathering included; predict(x) gives the outputs
    predict(work, threads, dtype) -> run(calls) of one prediction
    product(product, threads, dtype) -> run(calls)
    kernel(name, threads, dtype) -> run(calls)
    many(many, threads, dtype) -> run(epochs) of all nets
    speed(name, threads, dtype) -> run(calls), of the machine
    state() -> what the report should know: a dict

A run that returns has finished its work: engines that work behind the caller's back are waited for.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

Data = tuple[np.ndarray, np.ndarray]
Run = Callable[[int], None]
Training = tuple[Run, Callable[[np.ndarray], Any]]

# What the report calls them.
ENGINES = {
    "fastnn": "fastnn",
    "fastnn_folded": "fastnn, folded",
    "fastnn_c": "fastnn, from C",
    "numpy_mlp": "NumPy",
    "torch_eager": "PyTorch",
    "torch_compiled": "torch.compile",
    "torch_vmap": "torch.func.vmap",
    "jax_jit": "JAX jit",
    "jax_scan": "JAX scan",
    "sklearn_mlp": "scikit-learn",
    "onnx_runtime": "ONNX Runtime",
    "openvino_cpu": "OpenVINO",
    "floor": "floor",
}
OWN = [name for name in ENGINES if name.startswith("fastnn")]
PEERS = [name for name in ENGINES if name not in (*OWN, "floor")]


class UnsupportedError(Exception):
    """The engine cannot do this work; the sentence says why."""


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def repeat(call: Callable[[], object]) -> Run:
    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return run
