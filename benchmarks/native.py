"""`build/c/libfnn_bench.so` (benchmarks/c): the floors, and loops in C around the kernels and the C interface."""

import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
REAL = {"float32": ctypes.c_float, "float64": ctypes.c_double}
CACHE_LINE, CACHE_PAGE = 64, 4096


@cache
def load() -> ctypes.CDLL:
    """The library, built when missing or out of date."""
    subprocess.run(["make", "-s", "bench-lib"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    library = ctypes.CDLL(os.fspath(ROOT / "build/c/libfnn_bench.so"))
    library.fnn_bench_best_isa.restype = ctypes.c_char_p
    library.fnn_bench_net.restype = ctypes.c_void_p
    return library


def live_isa() -> str:
    """What FASTNN_ISA asks for, else the best instruction set that can run here."""
    return os.environ.get("FASTNN_ISA") or load().fnn_bench_best_isa().decode()


def padded(columns: int, dtype: str) -> int:
    """Elements between rows, as fnn_padded (csrc/net/plan.c) lays matrices out."""
    size = np.dtype(dtype).itemsize
    bytes_ = -(-columns * size // CACHE_LINE) * CACHE_LINE
    return (bytes_ + CACHE_LINE if bytes_ % CACHE_PAGE == 0 else bytes_) // size


def aligned(rows: int, columns: int, dtype: str) -> np.ndarray:
    """Zeros (rows, columns) whose first element starts a cache line."""
    size = rows * columns * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(rows, columns)


def matrix(rows: int, columns: int, dtype: str) -> np.ndarray:
    """Random numbers with the leading dimension of `padded`; the padding is 0."""
    whole = aligned(rows, padded(columns, dtype), dtype)
    whole[:, :columns] = np.random.default_rng(0).standard_normal((rows, columns))
    return whole


def call(function: str, *arguments: object) -> int:
    """Arrays are passed by address, integers as size_t."""
    converted = (
        ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_size_t(a) if isinstance(a, int) else a
        for a in arguments
    )
    return getattr(load(), function)(*converted)


def multiply_add(flops: int, dtype: str) -> None:
    """That many FLOPs in registers, at the speed of the live instruction set."""
    bits = np.dtype(dtype).itemsize * 8
    call(f"fnn_bench_fma_f{bits}_{live_isa()}", flops, REAL[dtype](1))


def read(data: np.ndarray, repeats: int) -> None:
    """Read the array, its size a multiple of 512 bytes."""
    call(f"fnn_bench_read_{live_isa()}", data, data.nbytes, repeats)


def readable(size: int) -> np.ndarray:
    """At least `size` bytes for `read`."""
    rounded = -(-size // 512) * 512
    data = aligned(1, rounded, "uint8")
    data[:] = 1  # else all its pages are the one page of zeros
    return data
