"""Calling a kernel under observation.

Every array handed to `Harness.run` is copied between two pages that may not be touched: at their start, at their end
and off alignment in turn. Inputs (pointers to const) are read-only pages. So a read or write outside an array, or a
write into an input, ends the process there and then (the traceback names the case), or is seen in the guard bytes. The
three placements must give the same bits.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import ClassVar

import kernel_table
import numpy as np

PLACEMENTS = ("page start", "unaligned", "page end")
POISON = np.nan  # what outputs hold before the call

_KERNELS = {kernel.name: kernel for kernel in kernel_table.KERNELS}
_GUARD = 0xA5
_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _protect(address, size, protection):
    if _libc.mprotect(address, size, protection) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


class _Pages:
    """Pages of memory between two untouchable ones, writable; used again and again, as mapping them is what costs."""

    _free: ClassVar[dict] = {}

    def __init__(self, count):
        self._map = mmap.mmap(-1, (count + 2) * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.bytes = np.frombuffer(self._map, np.uint8)[_PAGE : (count + 1) * _PAGE]
        self.address = self.bytes.ctypes.data
        _protect(self.address - _PAGE, _PAGE, _PROT_NONE)
        _protect(self.address + self.bytes.size, _PAGE, _PROT_NONE)

    @classmethod
    def take(cls, count):
        free = cls._free.setdefault(count, [])
        return free.pop() if free else cls(count)

    def give_back(self):
        self._free[self.bytes.size // _PAGE].append(self)


class Memory:
    """A copy of a contiguous array between two untouchable pages, until `release`."""

    def __init__(self, array, placement, writable):
        self._pages = _Pages.take(-(-(array.nbytes + 64) // _PAGE))
        self._bytes, self._writable = self._pages.bytes, writable
        start = {"page start": 0, "unaligned": array.itemsize, "page end": self._bytes.size - array.nbytes}[placement]
        end = start + array.nbytes
        self._guards = self._bytes[:start], self._bytes[end:]
        for guard in self._guards:
            guard.fill(_GUARD)
        self.array = self._bytes[start:end].view(array.dtype).reshape(array.shape)
        self.array[...] = array
        self.address = self._pages.address + start
        if not writable:
            _protect(self._pages.address, self._bytes.size, mmap.PROT_READ)

    def guards_intact(self):
        return all(guard.tobytes().count(_GUARD) == guard.size for guard in self._guards)

    def release(self):
        if not self._writable:
            _protect(self._pages.address, self._bytes.size, mmap.PROT_READ | mmap.PROT_WRITE)
        self._pages.give_back()


class FeatureMatrix:
    """A non-empty 2-d array of any dtype and strides as an fnn_features argument, in just the bytes it spans."""

    def __init__(self, matrix, byte_offset=0):
        self.matrix, self.byte_offset = matrix, byte_offset
        reach = [(n - 1) * stride for n, stride in zip(matrix.shape, matrix.strides, strict=True)]
        before = -sum(r for r in reach if r < 0)
        after = sum(r for r in reach if r > 0) + matrix.itemsize
        self._first = byte_offset + before
        spanned = (ctypes.c_uint8 * (before + after)).from_address(matrix.ctypes.data - before)
        self._bytes = np.concatenate([np.zeros(byte_offset, np.uint8), np.frombuffer(spanned, np.uint8)])

    def place(self, placement):
        memory = Memory(self._bytes, placement, writable=False)
        dtype = kernel_table.DTYPES.index(self.matrix.dtype.name)
        strides = self.matrix.strides
        return kernel_table.Features(memory.address + self._first, dtype, *strides, len(self.matrix)), [memory]


class Conversion:
    """An fnn_conversion argument."""

    def __init__(self, factor=1.0, mean=None, scale=None):
        self.factor, self.mean, self.scale = factor, mean, scale

    def place(self, placement):
        memories = [None if a is None else Memory(a, placement, writable=False) for a in (self.mean, self.scale)]
        mean, scale = (None if memory is None else memory.address for memory in memories)
        return kernel_table.Conversion(self.factor, mean, scale), [m for m in memories if m is not None]


class Harness:
    """The kernels of a table under observation, and test data for them."""

    def __init__(self, table, placements=PLACEMENTS):
        self.table = table
        self.placements = placements
        self.dtype = table.dtype
        self.eps = float(np.finfo(table.dtype).eps)
        self.rng = np.random.default_rng(20240229)
        self.calls = []  # (kernel, arguments, outputs) of every run
        w = table.width
        self.sizes = sorted({0, 1, w - 1, w, w + 1, 17, 33, 100})
        self.every_size = [*range(131), 300, 1031]

    def run(self, name, *arguments):
        """The outputs: the value of the kernel, or copies of the arrays it wrote, a single one not in a tuple.

        The same array object in two places is one buffer for the kernel.
        """
        results = [self.call(name, arguments, placement) for placement in self.placements]
        for placement, result in zip(self.placements[1:], results[1:], strict=True):
            for first, other in zip(results[0], result, strict=True):
                assert first.tobytes() == other.tobytes(), f"{name}: other bits at {placement}"
        self.calls.append((name, arguments, results[0]))
        return results[0][0] if len(results[0]) == 1 else results[0]

    def call(self, name, arguments, placement):
        """All outputs of one call, the arrays in one placement."""
        kernel = _KERNELS[name]
        written = zip(arguments, kernel.types, strict=True)
        outputs = {id(a): None for a, t in written if isinstance(a, np.ndarray) and not t.startswith("const ")}
        placed, passed, memories = {}, [], []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                if id(argument) not in placed:
                    placed[id(argument)] = Memory(argument, placement, writable=id(argument) in outputs)
                    memories.append(placed[id(argument)])
                passed.append(placed[id(argument)].address)
            elif hasattr(argument, "place"):
                structure, extra = argument.place(placement)
                memories += extra
                passed.append(ctypes.byref(structure))
            elif isinstance(argument, ctypes.Structure):
                passed.append(ctypes.byref(argument))
            else:
                passed.append(argument)
        value = getattr(self.table, name)(*passed)
        assert all(memory.guards_intact() for memory in memories), f"{name}: wrote outside its arrays ({placement})"
        results = [np.array(value)] if kernel.result != "void" else [placed[key].array.copy() for key in outputs]
        for memory in memories:
            memory.release()
        return results

    # ---- test data ----

    def random(self, *shape, low=-3.0, high=3.0, dtype=None):
        """Uniform numbers that provably vary."""
        values = self.rng.uniform(low, high, shape).astype(dtype or self.dtype)
        assert values.size < 2 or values.std() > 0
        return values

    def poison(self, *shape, dtype=None):
        """An output before the call."""
        dtype = np.dtype(dtype or self.dtype)
        return np.full(shape, POISON if dtype.kind == "f" else 0x5A, dtype)

    def with_pads(self, values, ld, pad=POISON):
        """values (m,n) as the buffer (m,ld), columns n..ld holding `pad`."""
        buffer = np.full((len(values), ld), pad, values.dtype)
        buffer[:, : values.shape[1]] = values
        return buffer

    def column_block(self, values, ld):
        """values (m,n) as the flat buffer of a block of columns: rows ld apart, nothing after the last one's n."""
        return self.with_pads(values, ld).ravel()[: span(*values.shape, ld)].copy()


def span(m, n, ld):
    """Elements from the first to the last of m rows of n."""
    return (m - 1) * ld + n if m and n else 0


def split_column_block(flat, m, n, ld):
    """The (m,n) values of a `column_block` and what lies between its rows."""
    whole = np.full(m * ld, POISON, flat.dtype)
    whole[: flat.size] = flat
    whole = whole.reshape(m, ld)
    return whole[:, :n], whole[:, n:]


def assert_close(actual, expected, tolerance, context=""):
    """|actual - expected| <= tolerance element by element; NaN where NaN is expected, and infinities exactly."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    tolerance = np.broadcast_to(np.asarray(tolerance, np.float64), expected.shape)
    assert actual.shape == expected.shape, f"{context}: shape {actual.shape}, expected {expected.shape}"
    with np.errstate(invalid="ignore"):
        good = (np.abs(actual - expected) <= tolerance) | (actual == expected)
    good |= np.isnan(actual) & np.isnan(expected)
    if not good.all():
        at = tuple(int(i[0]) for i in np.nonzero(~good))
        raise AssertionError(
            f"{context}: {np.count_nonzero(~good)} of {good.size} elements differ, first at {at}: "
            f"{actual[at]!r}, expected {expected[at]!r} within {tolerance[at]:.3g}"
        )


def assert_untouched(array, context=""):
    """The poison is still there."""
    expected = np.full(array.shape, POISON if array.dtype.kind == "f" else 0x5A, array.dtype)
    assert array.tobytes() == expected.tobytes(), f"{context}: padding was written"


def ulp_error(actual, exact):
    """|actual - exact| in units of the last place of the correctly rounded result, for exact of a wider type. Infinite
    where one is NaN or infinite and the correctly rounded result is not the same."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(actual.dtype)
        error = np.abs(actual.astype(exact.dtype) - exact) / np.spacing(np.abs(rounded)).astype(exact.dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    finite = np.isfinite(actual) & np.isfinite(rounded)
    return np.where(finite, error, np.where(same, 0, np.inf)).astype(np.float64)
