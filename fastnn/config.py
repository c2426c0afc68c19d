"""Threads, what this build runs on, and where its C header is."""

import os

from . import _core
from ._declare import threads, warn

__all__ = ["get_include", "get_num_threads", "set_num_threads", "show_config"]


def set_num_threads(n: int | None) -> None:
    """Threads used where no ``n_threads=`` is given.

    Parameters
    ----------
    n : int or None
        >= 1. None: FASTNN_NUM_THREADS, else OMP_NUM_THREADS, else the processors that this process may use.
    """
    _core.set_num_threads(threads(n))


def get_num_threads() -> int:
    """Threads used where no ``n_threads=`` is given."""
    return _core.get_num_threads()


def get_include() -> str:
    """The folder of ``fastnn.h``, the header and manual of the C library.

    The library itself is not in the package: ``make install`` in the sources of this version builds it.
    """
    return os.path.join(os.path.dirname(__file__), "include")


_told = False


def tell_refused_threads() -> None:
    """One warning per process once the system has refused a thread."""
    global _told
    if not _told and _core.thread_failures():
        _told = True
        warn(
            f"The system refused {_core.thread_failures()} thread(s): fewer work, with the same results. "
            "Raise its limit, or ask for fewer with n_threads.",
            RuntimeWarning,
        )


def show_config() -> None:
    """Print versions, the live instruction set, the compiler and the number of threads."""
    import platform

    import numpy as np

    print(
        f"fastnn           {_core.version()}\n"
        f"instruction set  {_core.isa_name()} (available: {', '.join(_core.available_isas())})\n"
        f"compiler         {_core.compiler()}\n"
        f"threads          {_core.get_num_threads()}\n"
        f"Python           {platform.python_version()} ({platform.machine()}, {platform.system()})\n"
        f"NumPy            {np.__version__}"
    )
