"""fastnn's frozen net, as `fold()` returns it."""

from ..workloads import Workload
from . import Run, fastnn

state = fastnn.state


def predict(work: Workload, threads: int, dtype: str) -> Run:
    return fastnn.predict(work, threads, dtype, fold=True)
