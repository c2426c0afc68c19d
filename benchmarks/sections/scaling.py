"""More threads: the workloads, and nets from far too small for two threads to large enough."""

from ..markdown import factor, missing_notes, table, times
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import SIZES, WORKLOADS

TITLE = "Thread scaling"
ONE = Subject("fastnn")


def run(suite: Suite) -> None:
    subjects = [Subject("fastnn", threads) for threads in suite.thread_counts]
    with suite.workers(subjects) as workers:
        for work in suite.chosen_works([*WORKLOADS, *SIZES]):
            suite.measure("scaling", work.name, workers, "training", work.name)


def report(results: Results) -> list[str]:
    subjects = [s for s in results.subjects("scaling") if s.threads > 1]
    if not subjects:
        return ["This machine has one core."]
    rows = []
    for case in results.cases("scaling"):
        ratios = [results.ratio("scaling", case, ONE, subject) for subject in subjects]
        rows.append([case, times(results.summary("scaling", case, ONE)), *map(factor, ratios)])
    headings = ["step", "one thread, µs", *(f"{s.threads} threads" for s in subjects)]
    return [*table(headings, rows), *missing_notes(results, "scaling")]
