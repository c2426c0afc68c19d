"""All threads while another process holds one of their cores, against one quiet thread in the same rounds."""

from ..markdown import MISSING, microseconds, missing_notes, table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import WORKLOADS

TITLE = "Beside a busy process"
TRAINERS = ("fastnn", "torch_eager", "jax_scan", "sklearn_mlp")


def run(suite: Suite) -> None:
    threads = len(suite.cores)
    if threads == 1:
        return
    beside = [Subject(engine, threads, busy=True) for engine in TRAINERS]
    subjects = [*map(quiet, beside), *beside]
    for work in suite.chosen_works(WORKLOADS):
        with suite.workers(subjects) as workers:
            suite.measure("busy", work.name, workers, "training", work.name, block=0.01, seconds=2)


def quiet(subject: Subject) -> Subject:
    """What a subject beside a busy process is held against."""
    return Subject(subject.engine)


def slowdown(results: Results, case: str, subject: Subject) -> tuple[float, float] | None:
    """(median, p99) against the median of one quiet thread."""
    alone, beside = (results.summary("busy", case, s) for s in (quiet(subject), subject))
    return (beside.median / alone.median, beside.p99 / alone.median) if alone and beside else None


def report(results: Results) -> list[str]:
    subjects = [s for s in results.subjects("busy") if s.busy]
    if not subjects:
        return ["This machine has one core."]
    rows = []
    for case in results.cases("busy"):
        for subject in subjects:
            alone, ratios = results.summary("busy", case, quiet(subject)), slowdown(results, case, subject)
            if alone and ratios:
                rows.append([f"{case}: {subject.label}", microseconds(alone.median), *(f"{r:.2f}x" for r in ratios)])
    headings = ["step", "one quiet thread, µs", "median", "p99"]
    note = "A sample is a block of about 10 ms, or one step where that takes longer."
    return [note, "", *(table(headings, rows) if rows else [MISSING]), *missing_notes(results, "busy")]
