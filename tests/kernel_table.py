"""The C kernels as Python callables, one table per instruction set and element type.

`kernels.def` is the only list: names and argument types are read from it, so that a kernel is reachable here as soon as
it is listed. The library is a test-only build of the kernels with two exported functions (`make test-kernels-lib`).

    table = kernel_table.load("avx2", 32)      # None where this machine cannot run it
    table.add(total, terms, total.size)        # arrays are passed by address, None as NULL; nothing is checked
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

# The instruction sets a machine may have. FMA: those whose results agree bit by bit; vector width in bytes.
ISAS = {"x86_64": ("baseline", "avx2", "avx512"), "aarch64": ("baseline", "neon")}.get(
    platform.machine(), ("baseline",)
)
VECTOR_BYTES = {"baseline": 16, "neon": 16, "avx2": 32, "avx512": 64}
PAD_BYTES = 64


class Random(ctypes.Structure):
    """fnn_random"""

    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("step", ctypes.c_uint64),
        ("stream", ctypes.c_uint32),
        ("layer", ctypes.c_uint32),
    ]


class Conversion(ctypes.Structure):
    """fnn_conversion"""

    _fields_ = [("factor", ctypes.c_double), ("mean", ctypes.c_void_p), ("scale", ctypes.c_void_p)]


class Features(ctypes.Structure):
    """fnn_features"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("row_stride", ctypes.c_ssize_t),
        ("column_stride", ctypes.c_ssize_t),
        ("rows", ctypes.c_size_t),
    ]


class Update(ctypes.Structure):
    """fnn_update"""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("learning_rate", "l1", "l2", "proximal")),
        *((name, ctypes.c_double) for name in ("clip_scale", "clip_min", "clip_max", "momentum")),
        *((name, ctypes.c_double) for name in ("beta1", "beta2", "eps", "correction1", "correction2")),
        *((name, ctypes.c_double) for name in ("weight_decay", "decoupled_decay")),
        ("nesterov", ctypes.c_int),
        ("first", ctypes.c_int),
    ]


# enum fnn_dtype: the place is the number.
DTYPES = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")

_C_TYPES = {
    "void": None,
    "double": ctypes.c_double,
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "size_t": ctypes.c_size_t,
    "ptrdiff_t": ctypes.c_ssize_t,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "fnn_activation": ctypes.c_int,
}


@dataclass(frozen=True)
class Kernel:
    """One FNN_KERNEL entry: C types as written, names of the arguments."""

    name: str
    result: str
    types: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def prototype(self):
        pointers = (ctypes.c_void_p if t.endswith("*") else _C_TYPES[t] for t in self.types)
        return ctypes.CFUNCTYPE(_C_TYPES[self.result], *pointers)


def parse_kernels(text):
    """The FNN_KERNEL entries of a kernels.def, in its order."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    kernels = []
    for result, name, arguments in re.findall(r"FNN_KERNEL\(\s*(\w+),\s*(\w+),\s*\((.*?)\)\)", text, re.DOTALL):
        split = [re.fullmatch(r"(.*?)(\w+)", " ".join(a.split())).groups() for a in arguments.split(",")]
        kernels.append(Kernel(name, result, tuple(t.strip() for t, _ in split), tuple(n for _, n in split)))
    if len(kernels) != text.count("FNN_KERNEL"):
        raise ValueError("an entry of kernels.def was not understood")
    return kernels


KERNELS = parse_kernels((ROOT / "csrc/kernels/kernels.def").read_text())


@cache
def load_library():
    """The test library, built when missing or out of date. FASTNN_TEST_LIBRARY names another build of it to test
    (another compiler, a sanitizer)."""
    path = os.environ.get("FASTNN_TEST_LIBRARY")
    if path is None:
        subprocess.run(["make", "-s", "test-kernels-lib"], cwd=ROOT, check=True)
        path = ROOT / "build/c/libfnn_test.so"
    lib = ctypes.CDLL(os.fspath(path))
    lib.fnn_test_table.restype = ctypes.POINTER(ctypes.c_void_p)
    lib.fnn_test_table.argtypes = [ctypes.c_char_p, ctypes.c_int]
    lib.fnn_test_kernel_names.restype = ctypes.c_char_p
    lib.fnn_test_kernel_names.argtypes = []
    built = lib.fnn_test_kernel_names().decode().split()
    if built != [kernel.name for kernel in KERNELS]:
        raise RuntimeError(f"{path} was built from another kernels.def")
    return lib


def _address(argument):
    return argument.ctypes.data if isinstance(argument, np.ndarray) else argument


class Table:
    """The kernels of one instruction set and element type, each an attribute."""

    def __init__(self, isa, bits, pointers):
        self.isa, self.bits = isa, bits
        self.dtype = np.dtype(f"float{bits}")
        self.width = VECTOR_BYTES[isa] // self.dtype.itemsize
        self.pad = PAD_BYTES // self.dtype.itemsize
        if ctypes.cast(pointers[0], ctypes.c_char_p).value != isa.encode():
            raise RuntimeError(f"the table of {isa} says it is another one's")
        for kernel, pointer in zip(KERNELS, pointers[1 : len(KERNELS) + 1], strict=True):
            setattr(self, kernel.name, self._callable(kernel.prototype(pointer)))

    @staticmethod
    def _callable(function):
        return lambda *arguments: function(*map(_address, arguments))

    def __repr__(self):
        return f"{self.isa}-f{self.bits}"

    def padded(self, n):
        """The least padded leading dimension for n columns."""
        return -(-n // self.pad) * self.pad


@cache
def load(isa, bits):
    """The table, or None if it is not built in or this machine cannot run it."""
    pointers = load_library().fnn_test_table(isa.encode(), bits)
    return Table(isa, bits, pointers) if pointers else None
