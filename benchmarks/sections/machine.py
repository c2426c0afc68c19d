"""What the machine can do: multiply-adds in registers, reading from each level of memory."""

from ..markdown import table
from ..results import Results, Subject
from ..runner import Suite

TITLE = "Machine"
READS = {"L1, 16 KB": 1 << 14, "L2, 256 KB": 1 << 18, "L3, 4 MB": 1 << 22, "memory, 256 MB": 1 << 28}
FLOOR = Subject("floor")


def run(suite: Suite) -> None:
    with suite.workers([FLOOR, Subject("floor", dtype="float64")]) as workers:
        suite.measure("machine", "multiply-add", workers, "speed", "fma")
        for name, size in READS.items():
            suite.measure("machine", f"read {name}", workers[:1], "speed", str(size))


def report(results: Results) -> list[str]:
    stamp = results.stamp
    lines = [f"- {name}: {value}" for name, value in stamp.items() if isinstance(value, (str, int, float))]
    for engine, state in stamp.get("engines", {}).items():
        pools = [
            f"{pool['internal_api']} {pool['version'] or ''} {pool['architecture'] or ''}".strip()
            for pool in state.get("thread_pools", [])
        ]
        known = [f"{key} {value}" for key, value in state.items() if key not in ("thread_pools", "allocations")]
        lines.append(f"- {engine}: {', '.join([*known, *pools])}")
    rows = []
    for case in results.cases("machine"):
        unit = "GFLOP/s" if case == "multiply-add" else "GB/s"
        for subject in results.subjects("machine"):
            if summary := results.summary("machine", case, subject):
                rows.append([case, subject.dtype, f"{1 / summary.best:.1f} / {1 / summary.median:.1f} {unit}"])
    return [*lines, "", *table(["one core", "", "best / median"], rows)]
