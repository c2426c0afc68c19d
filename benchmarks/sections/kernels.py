"""The kernels that work element by element or row by row, beside NumPy and beside the bare reading of their arrays."""

from ..kernels import KERNELS
from ..markdown import MISSING, factor, missing_notes, share, table
from ..results import Results, Subject
from ..runner import Suite

TITLE = "Kernels"
OWN, NUMPY, FLOOR = Subject("fastnn"), Subject("numpy_mlp"), Subject("floor")


def run(suite: Suite) -> None:
    with suite.workers([OWN, NUMPY, FLOOR]) as workers:
        for name in KERNELS:
            suite.measure("kernels", name, workers, "kernel", name, seconds=0.4)


def report(results: Results) -> list[str]:
    rows = []
    for case in results.cases("kernels"):
        summary = results.summary("kernels", case, OWN)
        each = f"{summary.median / KERNELS[case].elements * 1e9:.3f}" if summary else MISSING
        rows.append(
            [
                case,
                each,
                share(results.ratio("kernels", case, FLOOR, OWN)),
                factor(results.ratio("kernels", case, NUMPY, OWN)),
            ]
        )
    return [
        "float32, one thread; the bandwidth is that of reading all arrays of the kernel once.",
        "",
        *table(["kernel", "ns per element", "of the bandwidth", "beside NumPy"], rows),
        *missing_notes(results, "kernels"),
    ]
