"""fastnn's C interface: `fnn_predict` in a C loop."""

import ctypes

import numpy as np

from .. import native
from ..workloads import Workload
from . import Run, UnsupportedError


def predict(work: Workload, threads: int, dtype: str) -> Run:
    if dtype != "float32":
        raise UnsupportedError("the loop in C is written for float32.")
    widths = np.array(work.widths, np.uintp)
    net = native.call("fnn_bench_net", widths, len(work.shapes))
    if not net:
        raise RuntimeError("the net could not be built in C.")
    x, out = work.features(), np.empty((work.batch, work.widths[-1]), np.float32)

    def run(calls: int) -> None:
        status = native.call(
            "fnn_bench_predict", ctypes.c_void_p(net), out, x, work.batch, ctypes.c_int(threads), calls
        )
        if status:
            raise RuntimeError(f"fnn_predict returned status {status}.")

    return run
