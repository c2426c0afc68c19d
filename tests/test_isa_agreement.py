"""Every instruction set with fused multiply-add gives the same bits; the baseline, without it, nearly the same.

The calls compared are those that the cases of `kernel_cases` make on the widest instruction set.
"""

import kernel_table
import numpy as np
import pytest
from kernel_cases import CASES
from kernel_harness import Harness

# Kernels without a sum of products: the baseline has to give the same bits as well.
EXACT_ON_BASELINE = {
    "transpose",
    "dense_pack",
    "column_sums",
    "add",
    "scale",
    "dropout_forward",
    "dropout_backward",
    "dropout_enumerated",
    "loss_mae",
    "any_outside",
    "first_nonfinite",
    "gather",
    "draw_uniform",
    "draw_normal",
    "draw_permutation",
    "orthonormalize",
}

# Elsewhere it rounds each product before the sum: the difference to the fused result, in eps of the largest element of
# the output (1 at least). 2000: a product over 1100 terms of up to 9.
BASELINE_TOLERANCE = 2000


def tables(bits):
    """The baseline, the widest instruction set with FMA, the others with FMA."""
    found = [table for isa in kernel_table.ISAS if (table := kernel_table.load(isa, bits))]
    if len(found) < 2:
        pytest.skip("this machine runs the baseline alone")
    return found[0], found[-1], found[1:-1]


def bits_of(array):
    """The bytes, every NaN alike: its sign and payload follow the order of operands, which no one promises."""
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return array.tobytes()


def assert_informative(kernel, outputs):
    """Agreement on nothing but zeros, NaN and infinities would prove nothing."""
    values = np.concatenate([np.ravel(o).astype(np.float64) for o in outputs])
    finite = values[np.isfinite(values)]
    assert finite.size >= values.size / 4, f"{kernel}: mostly not finite"
    assert finite.min() < finite.max(), f"{kernel}: constant output"


@pytest.mark.usefixtures("kernels_library")
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("kernel", list(CASES))
def test_same_bits(kernel, bits):
    baseline, widest, others = tables(bits)
    harness = Harness(widest, placements=("unaligned",))
    harness.every_size = [*harness.sizes, 1031]  # test_kernels.py does go through every one
    CASES[kernel](harness)
    calls = [call for call in harness.calls if call[0] == kernel]
    assert_informative(kernel, [output for call in calls for output in call[2]])

    for table in others:
        for _, arguments, expected in calls:
            got = Harness(table).call(kernel, arguments, "page end")
            for a, b in zip(got, expected, strict=True):
                assert bits_of(a) == bits_of(b), f"{kernel} on {table}: other bits than {widest}"

    eps = np.finfo(baseline.dtype).eps
    for _, arguments, expected in calls:
        got = Harness(baseline).call(kernel, arguments, "page end")
        for a, b in zip(got, expected, strict=True):
            if kernel in EXACT_ON_BASELINE:
                assert bits_of(a) == bits_of(b), f"{kernel} on {baseline}: other bits than {widest}"
                continue
            largest = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0))
            np.testing.assert_allclose(a, b, rtol=BASELINE_TOLERANCE * eps, atol=BASELINE_TOLERANCE * eps * largest)
