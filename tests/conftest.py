"""Fixtures that several test files share."""

import kernel_table
import pytest


@pytest.fixture(scope="session")
def kernels_library():
    """The built library; a build that fails is tried once."""
    return kernel_table.load_library()


@pytest.fixture(
    scope="session", params=[(isa, bits) for isa in kernel_table.ISAS for bits in (32, 64)], ids="{0[0]}-f{0[1]}".format
)
def table(request, kernels_library):
    """The kernels of every instruction set and element type that this machine can run."""
    found = kernel_table.load(*request.param)
    if found is None:
        pytest.skip("not run by this machine")
    return found
