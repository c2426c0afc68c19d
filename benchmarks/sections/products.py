"""The three products of every layer: kernels in a C loop beside OpenBLAS (NumPy) and MKL (PyTorch)."""

from dataclasses import replace

from .. import native
from ..markdown import MISSING, missing_notes, share, table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import BY_NAME, PRODUCTS

TITLE = "Products of the layers"
PEERS = [Subject("numpy_mlp"), Subject("torch_eager")]
OWN, DOUBLE = Subject("fastnn"), Subject("fastnn", dtype="float64")
SHARE_OF_SECONDS = 0.4  # of a turn: these are many, and steady


def run(suite: Suite) -> None:
    own = [OWN, DOUBLE]
    if native.live_isa() == "avx512":
        own.append(Subject("fastnn", isa="avx2"))
    products = [product for product in PRODUCTS if not suite.works or product.work in suite.works]
    with suite.workers([*own, *map(floor_of, own), *PEERS]) as workers:
        for product in products:
            suite.measure("products", product.name, workers, "product", product.name, seconds=SHARE_OF_SECONDS)


def floor_of(subject: Subject) -> Subject:
    """The peak that this subject is held against."""
    return replace(subject, engine="floor")


def forced(results: Results, isa: str) -> Subject:
    """Who computed with this instruction set: everybody, where it is the live one."""
    return OWN if results.stamp.get("instruction set") == isa else replace(OWN, isa=isa)


def report(results: Results) -> list[str]:
    own = [s for s in results.subjects("products") if s.engine == "fastnn"]
    headings = ["product, m x n x k", "GFLOP/s", *(f"of the peak, {s.isa or s.dtype}" for s in own)]
    headings += ["OpenBLAS", "MKL", "beside OpenBLAS", "beside MKL"]
    rows = []
    for case in results.cases("products"):
        flops = BY_NAME[case].flops

        def speed(subject: Subject, case: str = case, flops: int = flops) -> str:
            summary = results.summary("products", case, subject)
            return f"{flops / summary.median / 1e9:.1f}" if summary else MISSING

        shares = [share(results.ratio("products", case, floor_of(s), s)) for s in own]
        beside = [results.ratio("products", case, peer, OWN) for peer in PEERS]
        rows.append(
            [case, speed(OWN), *shares, *map(speed, PEERS), *(f"{r.median:.2f}x" if r else MISSING for r in beside)]
        )
    return [
        "One thread. NumPy and PyTorch are called from Python, once per product: about a microsecond of the small "
        "ones. dX is timed without the transposition of w, which a step does once per layer.",
        "",
        *table(headings, rows),
        *missing_notes(results, "products"),
    ]
