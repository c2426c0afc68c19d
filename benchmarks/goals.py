"""What is demanded: one list. A goal is a bound on something that the results can be asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .markdown import MISSING, microseconds
from .results import Results, Subject
from .sections import accuracy, busy, products, scaling
from .workloads import BY_NAME, PREDICTIONS, WORKLOADS
from .workloads import MANY as MANY_NETS

OWN, FOLDED, FROM_C, FLOOR = Subject("fastnn"), Subject("fastnn_folded"), Subject("fastnn_c"), Subject("floor")
TORCH = Subject("torch_eager")
SMALL, ONE, MANY, MOST = (work.name for work in PREDICTIONS)


@dataclass(frozen=True)
class Reached:
    """`value` by medians, `best` by best samples if there are any; `against`: the peer's figure, or what decided."""

    value: float
    best: float | None = None
    against: str = ""


Measure = Callable[[Results], Reached | None]  # None: not measured


@dataclass(frozen=True)
class Goal:
    subject: str
    bound: float
    unit: str  # "x", "%" or a unit of measurement
    measure: Measure
    beside: str = ""  # whom or what the figure is relative to
    at_most: bool = False

    @property
    def text(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.show(self.bound)} {self.beside}".strip()

    def show(self, value: float) -> str:
        if self.unit == "x":
            return f"{value:.3g}x"
        return f"{value:.0%}" if self.unit == "%" else f"{value:.3g} {self.unit}".strip()

    def met(self, reached: Reached) -> bool:
        return reached.value <= self.bound if self.at_most else reached.value >= self.bound


# ---- measures ----


def quicker(section: str, case: str, own: Subject, peer: Callable[[Results], Subject | None]) -> Measure:
    """How many times as fast as the peer."""

    def measure(results: Results) -> Reached | None:
        other = peer(results)
        ratio = other and results.ratio(section, case, other, own)
        if not ratio:
            return None
        summary = results.summary(section, case, other)
        return Reached(ratio.median, ratio.best, f"{other.label} {microseconds(summary.median)} µs")

    return measure


def than(subject: Subject) -> Callable[[Results], Subject]:
    return lambda results: subject


def than_best(section: str, case: str, like: Subject, engines: Sequence[str] | None = None):
    def peer(results: Results) -> Subject | None:
        if engines is None:
            return results.best_peer(section, case, like)
        return results.fastest(section, case, [replace(like, engine=engine) for engine in engines])

    return peer


def at_best_threads(section: str, case: str, peer: Subject) -> Measure:
    """Both at the number of threads where they are fastest."""

    def measure(results: Results) -> Reached | None:
        own, other = (results.any_threads(section, case, subject) for subject in (OWN, peer))
        return quicker(section, case, own, than(other))(results) if own and other else None

    return measure


def of_floor(section: str, case: str, own: Subject = OWN) -> Measure:
    def measure(results: Results) -> Reached | None:
        ratio = results.ratio(section, case, FLOOR, own)
        summary = results.summary(section, case, FLOOR)
        return Reached(ratio.median, ratio.best, f"floor {microseconds(summary.median)} µs") if ratio else None

    return measure


def time_of(section: str, case: str, own: Subject) -> Measure:
    """In microseconds."""

    def measure(results: Results) -> Reached | None:
        summary = results.summary(section, case, own)
        return Reached(summary.median * 1e6, summary.best * 1e6) if summary else None

    return measure


def worst(section: str, cases: Callable[[str], bool], numerator: Subject, denominator: Subject) -> Measure:
    """The smallest ratio of all cases."""

    def measure(results: Results) -> Reached | None:
        ratios = {
            case: ratio
            for case in results.cases(section)
            if cases(case) and (ratio := results.ratio(section, case, numerator, denominator))
        }
        if not ratios:
            return None
        case = min(ratios, key=lambda case: ratios[case].median)
        return Reached(ratios[case].median, ratios[case].best, f"worst: {case}")

    return measure


def scaled(case: str, section: str = "scaling") -> Measure:
    """By all cores."""

    def measure(results: Results) -> Reached | None:
        most = max((s.threads for s in results.subjects(section)), default=1)
        ratio = results.ratio(section, case, OWN, replace(OWN, threads=most)) if most > 1 else None
        return Reached(ratio.median, ratio.best, f"{most} threads") if ratio else None

    return measure


def never_slower(results: Results) -> Reached | None:
    """Over all cases and numbers of threads; what the noise of a case may explain is not held against it."""
    ratios = {
        f"{case}, {subject.threads} threads": ratio
        for case in results.cases("scaling")
        for subject in results.subjects("scaling")
        if subject.threads > 1 and (ratio := results.ratio("scaling", case, scaling.ONE, subject))
    }
    if not ratios:
        return None
    name = min(ratios, key=lambda name: ratios[name].high)
    return Reached(ratios[name].high, None, f"worst: {name}, quartiles {ratios[name].low:.2f}-{ratios[name].high:.2f}")


def beside_busy(case: str, which: int) -> Measure:
    """which: 0 median, 1 p99."""

    def measure(results: Results) -> Reached | None:
        own = next((s for s in results.subjects("busy") if s.busy and s.engine == "fastnn"), None)
        ratios = busy.slowdown(results, case, own) if own else None
        peer = replace(own, engine="torch_eager") if own else None
        others = busy.slowdown(results, case, peer) if peer else None
        return Reached(ratios[which], None, f"PyTorch {others[which]:.3g}x" if others else "") if ratios else None

    return measure


def fact(section: str, *keys: str, scale: float = 1.0) -> Measure:
    """A number, or the median of a list of them."""

    def measure(results: Results) -> Reached | None:
        found = results.facts.get(section, {})
        for key in keys:
            found = (found or {}).get(key)
        return None if found is None else Reached(float(np.median(found)) * scale)

    return measure


def learned(task: str, peer: str) -> Measure:
    def measure(results: Results) -> Reached | None:
        own, other = (accuracy.seconds(results, task, engine) for engine in ("fastnn", peer))
        return Reached(other / own, None, f"{Subject(peer).label} {other:.2f} s") if own and other else None

    return measure


def is_full_product(case: str) -> bool:
    """No side shorter than 32: the others are shown, not judged."""
    product = BY_NAME[case]
    return min(product.m, product.n, product.k) >= 32


def is_weight_gradient_of_large(case: str) -> bool:
    product = BY_NAME[case]
    return is_full_product(case) and (product.work, product.kind) == ("large", "dW")


# ---- the list ----


def step(work: str, best: float, torch: float = 0, floor: float = 0) -> list[Goal]:
    goals = [
        Goal(f"`{work}` step", best, "x", quicker("steps", work, OWN, than_best("steps", work, OWN, peers)), who)
        for who, peers in (("the best peer", None), ("the best peer with a call per step", STEPPERS))
    ]
    if torch:
        goals.append(Goal(f"`{work}` step", torch, "x", quicker("steps", work, OWN, than(TORCH)), "PyTorch"))
    if floor:
        goals.append(Goal(f"`{work}` step", floor, "%", of_floor("steps", work), "of the floor"))
    return goals


def product_goals(name: str, isa: str, share: float, share_of_large: float) -> list[Goal]:
    def measure(cases: Callable[[str], bool]) -> Measure:
        def of_peak(results: Results) -> Reached | None:
            own = products.forced(results, isa)
            return worst("products", cases, products.floor_of(own), own)(results)

        return of_peak

    common = measure(lambda case: is_full_product(case) and not is_weight_gradient_of_large(case))
    large = measure(is_weight_gradient_of_large)
    return [
        Goal(f"products, {name}", share, "%", common, "of the FMA peak"),
        Goal(f"dW of `large`, {name}", share_of_large, "%", large, "of the FMA peak"),
    ]


RUNTIMES = ("onnx_runtime", "openvino_cpu")
STEPPERS = ("numpy_mlp", "torch_eager", "torch_compiled", "jax_jit", "sklearn_mlp")

GOALS: list[Goal] = [
    *step("tiny", 15, torch=50),
    *step("sgd1", 2.2, torch=6),
    *step("tabular", 1.6, torch=2.5, floor=0.82),
    *step("mnist", 1.4, torch=2, floor=0.85),
    Goal("`lecture` step", 1.5, "x", quicker("steps", "lecture", OWN, than(Subject("jax_jit"))), "JAX"),
    Goal("`lecture` step", 2, "x", quicker("steps", "lecture", OWN, than(TORCH)), "PyTorch"),
    Goal("`lecture` step", 0.85, "%", of_floor("steps", "lecture"), "of the floor"),
    *step("large", 1.12, floor=0.90),
    *step("chains", 2.5, floor=0.78),
    Goal("`chains` step", 6, "x", at_best_threads("steps", "chains", TORCH), "PyTorch, each at its best threads"),
    Goal(f"predict {SMALL}, from Python", 1.0, "µs", time_of("predict", SMALL, OWN), at_most=True),
    Goal(
        f"predict {SMALL}, from Python",
        6,
        "x",
        quicker("predict", SMALL, OWN, than(Subject("onnx_runtime"))),
        "ONNX Runtime",
    ),
    Goal(f"predict {SMALL}, from C", 0.25, "µs", time_of("predict", SMALL, FROM_C), at_most=True),
    Goal(f"predict {ONE}, folded", 0.95, "%", of_floor("predict", ONE, FOLDED), "of the bandwidth"),
    Goal(f"predict {ONE}, live", 0.78, "%", of_floor("predict", ONE), "of the bandwidth"),
    *(
        Goal(f"predict {case}, {state}", 0.97, "%", of_floor("predict", case, own), "of the floor")
        for case in (MANY, MOST)
        for state, own in (("folded", FOLDED), ("live", OWN))
    ),
    *(
        Goal(
            f"predict {case}, {state}",
            1,
            "x",
            quicker("predict", case, own, than_best("predict", case, own, RUNTIMES)),
            who,
        )
        for case in (MANY, MOST)
        for state, own in (("folded", FOLDED), ("live", OWN))
        for who in ("OpenVINO and ONNX Runtime",)
    ),
    *product_goals("AVX-512", "avx512", 0.95, 0.93),
    *product_goals("AVX2", "avx2", 0.88, 0.80),
    Goal("products", 1.05, "x", worst("products", is_full_product, Subject("numpy_mlp"), OWN), "OpenBLAS"),
    Goal("products", 1.05, "x", worst("products", is_full_product, TORCH, OWN), "MKL"),
    *(
        Goal(f"`{work}`, all cores", bound, "x", scaled(work), "one thread")
        for work, bound in (("lecture", 1.95), ("large", 1.9), ("chains", 1.9), ("mnist", 1.65), ("tabular", 1.45))
    ),
    *(Goal(f"{many.name}, all cores", 1.8, "x", scaled(many.name, "many"), "one thread") for many in MANY_NETS),
    *(
        Goal(f"{many.name}, one thread", 30, "x", quicker("many", many.name, OWN, than(TORCH)), "a loop over PyTorch's")
        for many in MANY_NETS
    ),
    Goal("any size, more threads", 1, "x", never_slower, "one thread"),
    *(
        Goal(
            f"`{work.name}` beside a busy process, {name}",
            bound,
            "x",
            beside_busy(work.name, which),
            "one quiet thread",
            True,
        )
        for work in WORKLOADS
        for which, (name, bound) in enumerate((("median", 1.5), ("p99", 3)))
    ),
    Goal(
        "float64, every workload",
        0.44,
        "%",
        worst("steps", lambda case: True, OWN, Subject("fastnn", dtype="float64")),
        "of the float32 speed",
    ),
    Goal("import on top of NumPy", 15, "ms", fact("footprint", "import_seconds", "fastnn", scale=1e3), at_most=True),
    Goal("wheel", 1, "MB", fact("footprint", "wheel_bytes", scale=1e-6), at_most=True),
    Goal("allocations per step", 0, "", fact("footprint", "usage", "lecture", "fastnn", "allocations"), at_most=True),
    Goal("page faults per step", 0, "", fact("footprint", "usage", "lecture", "fastnn", "page_faults"), at_most=True),
    Goal("MNIST to 98 %", 2, "x", learned("MNIST", "torch_eager"), "PyTorch"),
    Goal("MNIST to 98 %", 4, "x", learned("MNIST", "sklearn_mlp"), "scikit-learn"),
]


def rows(results: Results) -> list[list[str]]:
    """Of the goal table: subject, goal, reached by median, by best, beside, verdict."""
    found = []
    for goal in GOALS:
        reached = goal.measure(results)
        if reached is None:
            found.append([goal.subject, goal.text, MISSING, MISSING, "", "not measured"])
            continue
        best = MISSING if reached.best is None else goal.show(reached.best)
        verdict = "met" if goal.met(reached) else "**not met**"
        found.append([goal.subject, goal.text, goal.show(reached.value), best, reached.against, verdict])
    return found
