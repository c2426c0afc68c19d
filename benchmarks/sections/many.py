"""Many small nets on the same data: one call of fit_many, a loop over PyTorch's nets, and its nets stacked by vmap."""

from ..markdown import factor, microseconds, missing_notes, table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import MANY

TITLE = "Many nets"
ONE, PEERS = Subject("fastnn"), (Subject("torch_eager"), Subject("torch_vmap"))
BLOCK = 0.5  # seconds: some twenty epochs of a call


def run(suite: Suite) -> None:
    subjects = [*(Subject("fastnn", threads) for threads in suite.thread_counts), *PEERS]
    for many in suite.chosen_works(MANY):
        with suite.workers(subjects) as workers:
            suite.measure("many", many.name, workers, "many", many.name, block=0 if suite.quick else BLOCK)


def report(results: Results) -> list[str]:
    lines = [
        "Milliseconds per epoch of all nets; how many times as fast as one thread, and as the peers on one thread.",
        "",
    ]
    rows = []
    for case in results.cases("many"):
        for subject in results.subjects("many"):
            if summary := results.summary("many", case, subject):
                others = [factor(results.ratio("many", case, other, subject)) for other in (ONE, *PEERS)]
                rows.append([f"{case}: {subject.label}", microseconds(summary.median * 1e-3), *others])
    headings = ["nets", "ms", *(f"beside {other.label}" for other in (ONE, *PEERS))]
    return [*lines, *table(headings, rows), *missing_notes(results, "many")]
