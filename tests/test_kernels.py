"""Every kernel of kernels.def, on every instruction set this machine runs, against the oracle."""

import ctypes
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import kernel_table
import numpy as np
import pytest
import reference
from kernel_cases import CASES
from kernel_harness import Harness, ulp_error


def test_every_kernel_has_a_case():
    assert set(CASES) == {kernel.name for kernel in kernel_table.KERNELS}


@pytest.mark.parametrize("kernel", [kernel.name for kernel in kernel_table.KERNELS])
def test_kernel(kernel, table):
    harness = Harness(table)
    CASES[kernel](harness)
    assert any(name == kernel for name, _, _ in harness.calls), "the case does not call its kernel"


# ---- the checks are themselves checked ----


class Broken:
    """A table in float64 whose `scale` is right but for one fault."""

    isa, bits, dtype, width, pad = "broken", 64, np.dtype(np.float64), 4, 8

    def __init__(self, fault):
        self.fault = fault

    def scale(self, y, x, factor, count):
        if count == 0:
            return
        x, y = ((ctypes.c_double * (count + 1)).from_address(address) for address in (x, y))
        for i in range(count):
            y[i] = factor * x[i]
        if self.fault == "last value":
            y[count - 1] *= 1 + 1e-12
        if self.fault == "not a number":
            y[0] = np.nan
        if self.fault == "writes beyond":
            y[count] = 0


@pytest.mark.parametrize("fault", ["last value", "not a number", "writes beyond"])
def test_a_wrong_kernel_fails_its_case(fault):
    with pytest.raises(AssertionError):
        CASES["scale"](Harness(Broken(fault)))


# ---- the oracle's random numbers: known answers of Random123 (kat_vectors, philox 4x32 10) ----


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    assert reference.philox(np.array(counter, np.uint32), key).tolist() == list(words)


# ---- the elementary functions in float32, over all inputs ----

BLOCK = 2**18  # small enough for the caches, long enough that NumPy's calls cost nothing


def erf_float64(x):
    """erf by 2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, whose terms are all of one sign; vectorised, relative
    error below 1e-14 up to |x| = 4.2, beyond which erf is +-1 in float32."""
    if (np.abs(x) > 4.2).all():
        return np.sign(x)
    x = np.clip(x, -4.2, 4.2)
    square, term, total = 2 * x * x, x.copy(), x.copy()
    largest = np.fmax.reduce(square, initial=0)  # of the block, NaN apart: where it has converged, all of it has
    remaining = 1.0
    for n in itertools.count(1):
        term *= square
        term /= 2 * n + 1
        total += term
        remaining *= largest / (2 * n + 1)
        if not remaining > 1e-17:
            return 2 / math.sqrt(math.pi) * np.exp(square / -2) * total


def test_erf_float64_agrees_with_math():
    x = np.linspace(-4.2, 4.2, 1001)
    np.testing.assert_allclose(erf_float64(x), reference.erf(x), rtol=1e-14)


def assert_within_4_ulp(function, x, y, exact, isa):
    # Comparing bit patterns as integers settles nearly all; signs of zero, NaN and the limit itself are looked at.
    steps = y.view(np.int32) - exact.astype(np.float32).view(np.int32)
    doubtful = (steps + 3).view(np.uint32) > 6
    if not doubtful.any():
        return
    doubtful = np.flatnonzero(doubtful & ~(np.isnan(y) & np.isnan(exact)))
    if doubtful.size:
        error = ulp_error(y[doubtful], exact[doubtful])
        worst = int(np.argmax(error))
        at = doubtful[worst]
        assert error[worst] <= 4, f"{isa}: {function}({x[at]!r}) = {y[at]!r}, expected {exact[at]!r}"


@pytest.mark.long
@pytest.mark.usefixtures("kernels_library")
@pytest.mark.parametrize("function", reference.ELEMENTARY)
def test_every_float32_within_4_ulp(function):
    """All 2^32 inputs on the widest instruction set; the others with FMA must give the same bits; every 16th input
    without FMA. About a minute per function on two cores."""
    tables = [table for isa in kernel_table.ISAS if (table := kernel_table.load(isa, 32))]
    baseline, *others, widest = tables if len(tables) > 1 else (tables[0], tables[0])
    number = reference.ELEMENTARY.index(function)

    def evaluate(table, x):
        y = np.empty_like(x)
        table.elementary(y, x, number, x.size)
        return y

    def check(first):
        x = np.arange(first, first + BLOCK, dtype=np.uint32).view(np.float32)
        y = evaluate(widest, x)
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            exact = erf_float64(wide) if function == "erf" else reference.elementary(wide, function)
            assert_within_4_ulp(function, x, y, exact, widest.isa)
            sample = x[::16].copy()
            assert_within_4_ulp(function, sample, evaluate(baseline, sample), exact[::16], baseline.isa)
        for table in others:
            different = (evaluate(table, x).view(np.uint32) != y.view(np.uint32)) & ~np.isnan(y)
            assert not different.any(), f"{table.isa}: {function}({x[different][0]!r}) has other bits"

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(check, range(0, 2**32, BLOCK)):
            pass
