"""Training steps: every workload, every engine that trains, one thread and more, beside the floor."""

from dataclasses import replace

from ..markdown import factor, missing_notes, share, times_table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import WORKLOADS

TITLE = "Training steps"
TRAINERS = ("fastnn", "numpy_mlp", "torch_eager", "torch_compiled", "jax_jit", "jax_scan", "sklearn_mlp")
OWN, DOUBLE, FLOOR = Subject("fastnn"), Subject("fastnn", dtype="float64"), Subject("floor")


def run(suite: Suite) -> None:
    subjects = [Subject(engine, threads) for threads in suite.thread_counts for engine in TRAINERS]
    for work in suite.chosen_works(WORKLOADS):
        with suite.workers([*subjects, DOUBLE, FLOOR]) as workers:
            suite.measure("steps", work.name, workers, "training", work.name)


def report(results: Results) -> list[str]:
    lines = ["Microseconds per step, best / median."]
    for threads in sorted({s.threads for s in results.subjects("steps")}):
        own = replace(OWN, threads=threads)
        columns = [replace(own, engine=engine) for engine in TRAINERS]
        extra = {"beside the best peer": lambda case, own=own: beside_best(results, case, own)}
        if threads == 1:
            columns += [DOUBLE, FLOOR]
            extra["of the floor"] = lambda case: share(results.ratio("steps", case, FLOOR, OWN))
        lines += ["", f"**{threads} thread{'s' if threads > 1 else ''}**", ""]
        lines += times_table(results, "steps", columns, extra)
    return [*lines, *missing_notes(results, "steps")]


def beside_best(results: Results, case: str, own: Subject) -> str:
    peer = results.best_peer("steps", case, own)
    return factor(results.ratio("steps", case, peer, own) if peer else None)
