"""The kernels of `kernels.py` under pytest-benchmark (`make bench`)."""

import pytest

from . import kernels


@pytest.mark.parametrize("side", [0, 1], ids=["fastnn", "numpy"])
@pytest.mark.parametrize("name", kernels.KERNELS)
def test_kernel(benchmark, name, side):
    benchmark.group = name
    benchmark(kernels.sides(name)[side])
