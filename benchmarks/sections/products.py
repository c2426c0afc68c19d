"""The three products of every layer of every workload: kernels in a C loop beside OpenBLAS (NumPy) and MKL (PyTorch)."""

from .. import library
from ..markdown import MISSING, missing_notes, share, table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import BY_NAME, PRODUCTS

TITLE = "Products of the layers"
PEERS = [Subject("numpy_mlp"), Subject("torch_eager")]
OWN = [Subject("fastnn"), Subject("fastnn", isa="avx2"), Subject("fastnn", dtype="float64")]
FLOORS = [Subject("floor", isa=own.isa, dtype=own.dtype) for own in OWN]
SHARE_OF_SECONDS = 0.4  # of a turn: these are many, and steady


def run(suite: Suite) -> None:
    # AVX2 is worth a column where something better is live.
    subjects = [s for s in (*OWN, *FLOORS, *PEERS) if not s.isa or library.live_isa() == "avx512"]
    products = [product for product in PRODUCTS if not suite.works or product.work in suite.works]
    with suite.workers(subjects) as workers:
        for product in products:
            suite.measure("products", product.name, workers, "product", product.name, seconds=SHARE_OF_SECONDS)


def report(results: Results) -> list[str]:
    own = [s for s in OWN if s in results.subjects("products")]
    headings = ["product, m×n×k", "GFLOP/s"]
    headings += [f"of the peak{', ' if s != OWN[0] else ''}{s.label.removeprefix('fastnn, ')}".replace("fastnn", "") for s in own]
    headings += ["OpenBLAS", "MKL", "beside OpenBLAS", "beside MKL"]
    rows = []
    for case in results.cases("products"):
        flops = BY_NAME[case].flops

        def speed(subject: Subject, case: str = case, flops: int = flops) -> str:
            summary = results.summary("products", case, subject)
            return f"{flops / summary.median / 1e9:.1f}" if summary else MISSING

        shares = [share(results.ratio("products", case, floor_of(s), s)) for s in own]
        beside = [results.ratio("products", case, peer, OWN[0]) for peer in PEERS]
        rows.append(
            [case, speed(OWN[0]), *shares, *map(speed, PEERS), *(f"{r.median:.2f}×" if r else MISSING for r in beside)]
        )
    return [
        "One thread. NumPy and PyTorch are called from Python, once per product: about a microsecond of the small ones. "
        "dX is timed without the transposition of w, which a step does once per layer.",
        "",
        *table(headings, rows),
        *missing_notes(results, "products"),
    ]


def floor_of(subject: Subject) -> Subject:
    """The peak that this subject is held against."""
    return Subject("floor", isa=subject.isa, dtype=subject.dtype)
