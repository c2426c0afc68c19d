"""Prediction: live and folded net from Python, from C, and the peers; and how single calls are spread."""

from dataclasses import replace

from ..markdown import microseconds, missing_notes, share, table, times_table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import PREDICTIONS

TITLE = "Prediction"
ENGINES = (
    *("fastnn", "fastnn_folded", "fastnn_c", "numpy_mlp", "torch_eager", "torch_compiled"),
    *("jax_jit", "sklearn_mlp", "onnx_runtime", "openvino_cpu"),
)
OWN, FLOOR = Subject("fastnn"), Subject("floor")
SINGLE = "single calls"  # the section of latencies: one sample per call
NOT_SINGLE = ("floor", "fastnn_c")  # a call of these through ctypes takes longer than what it calls


def run(suite: Suite) -> None:
    subjects = [Subject(engine, threads) for threads in suite.thread_counts for engine in ENGINES]
    for work in suite.chosen_works(PREDICTIONS):
        with suite.workers([*subjects, FLOOR]) as workers:
            suite.measure("predict", work.name, workers, "predict", work.name)
            if work.batch == 1:
                one_core = [w for w in workers if w.subject.threads == 1 and w.subject.engine not in NOT_SINGLE]
                suite.measure(SINGLE, work.name, one_core, "predict", work.name, block=0)


def report(results: Results) -> list[str]:
    lines = ["Microseconds per call, best / median."]
    for threads in sorted({s.threads for s in results.subjects("predict")}):
        columns = [Subject(engine, threads) for engine in ENGINES]
        extra = {}
        if threads == 1:
            columns.append(FLOOR)
            for engine, heading in (("fastnn", "live"), ("fastnn_folded", "folded")):
                own = replace(OWN, engine=engine)
                extra[f"{heading}, of the floor"] = lambda case, own=own: share(
                    results.ratio("predict", case, FLOOR, own)
                )
        lines += ["", f"**{threads} thread{'s' if threads > 1 else ''}**", ""]
        lines += times_table(results, "predict", columns, extra)
    rows = []
    for case in results.cases(SINGLE):
        for subject in results.subjects(SINGLE):
            if s := results.summary(SINGLE, case, subject):
                values = (s.best, s.lower_quartile, s.median, s.upper_quartile, s.p99)
                rows.append([f"{case}: {subject.label}", *map(microseconds, values), f"{s.samples:,}"])
    lines += ["", "Single calls, one thread, microseconds, the clock's own 0.05 included:", ""]
    lines += table(["call", "best", "quartile", "median", "quartile", "p99", "calls"], rows)
    return [*lines, *missing_notes(results, "predict")]
