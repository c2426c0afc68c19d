"""Training steps over a grid of widths and batches: does the cost grow as the work, and as costs.py says?"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ..costs import Machine, predict
from ..markdown import MISSING, microseconds, missing_notes, table
from ..results import Results, Subject
from ..runner import Suite
from ..workloads import BY_NAME, GRID, GRID_BATCHES, GRID_WIDTHS, grid_cell
from . import machine as machine_section

TITLE = "Grid of widths and batches"
OWN = Subject("fastnn")
LONGEST, LONGEST_QUICK = 1.0, 1e-3  # seconds a step, by the model; longer ones are left out
ROUNDS, SECONDS, BLOCK = 3, 0.06, 0.01  # 130 cells, each steady: the whole grid takes about three minutes
CLIFF = 1.5  # times as slow per FLOP as both neighbours

Cell = tuple[int, int]  # (width, batch)


def run(suite: Suite) -> None:
    if not suite.results.of("machine"):
        machine_section.run(suite)
    core = Machine.of(suite.results)
    works = suite.chosen_works(GRID)
    left_out = [work.name for work in works if predict(work, core) > (LONGEST_QUICK if suite.quick else LONGEST)]
    suite.results.facts["grid"] = {"left out": left_out}
    short = suite if suite.quick else replace(suite, rounds=ROUNDS, seconds=SECONDS, block=BLOCK)
    with short.workers([OWN]) as workers:
        for work in works:
            if work.name not in left_out:
                # Of a long step one is enough for a sample.
                block = 0 if predict(work, core) > short.block else None
                short.measure("grid", work.name, workers, "training", work.name, block=block)


# ---- cells ----


def best_seconds(results: Results) -> dict[Cell, float]:
    """Of a step, by the best samples: a cell that another process has disturbed is no cliff."""
    found = {}
    for case in results.cases("grid"):
        if summary := results.summary("grid", case, OWN):
            found[cell_of(case)] = summary.best
    return found


def cell_of(case: str) -> Cell:
    return BY_NAME[case].widths[0], BY_NAME[case].batch


def flops_per_second(seconds: Mapping[Cell, float]) -> dict[Cell, float]:
    return {cell: grid_cell(*cell).step_flops / taken for cell, taken in seconds.items()}


def predictions(results: Results) -> dict[Cell, float]:
    """Seconds by the model, of the cells that were measured; none where the machine was not."""
    core = Machine.of(results)
    return {cell: predict(grid_cell(*cell), core) for cell in best_seconds(results)} if core else {}


def cliffs(speed: Mapping[Cell, float], factor: float = CLIFF) -> list[tuple[Cell, str, float]]:
    """(cell, axis, how many times slower per FLOP than the nearer of both neighbours along it), worst first."""
    found = []
    for width, batch in speed:
        for axis, before, after in (
            ("width", (width // 2, batch), (width * 2, batch)),
            ("batch", (width, batch // 2), (width, batch * 2)),
        ):
            if before in speed and after in speed:
                slower = min(speed[before], speed[after]) / speed[width, batch]
                if slower >= factor:
                    found.append(((width, batch), axis, slower))
    return sorted(found, key=lambda cliff: -cliff[2])


# ---- report ----


def report(results: Results) -> list[str]:
    seconds = best_seconds(results)
    speed, predicted = flops_per_second(seconds), predictions(results)
    ratios = {cell: predicted[cell] / seconds[cell] for cell in predicted}
    left_out = results.facts.get("grid", {}).get("left out", [])
    lines = [
        "W-W-W-10, ReLU, cross-entropy, Adam, float32, one thread, a step that gathers shuffled rows. Best samples.",
        "",
        "**GFLOP/s**",
        "",
        *cell_table(lambda cell: f"{speed[cell] / 1e9:.3g}" if cell in speed else MISSING),
        "**Microseconds per step**",
        "",
        *cell_table(lambda cell: microseconds(seconds[cell]) if cell in seconds else MISSING),
        "**Prediction / measurement**",
        "",
        *cell_table(lambda cell: f"{ratios[cell]:.2f}" if cell in ratios else MISSING),
        *summary_of(ratios),
        *cliff_lines(speed),
    ]
    if left_out:
        lines += [f"Left out, since a step would take longer than the grid allows: {', '.join(left_out)}.", ""]
    return [*lines, *missing_notes(results, "grid")]


def cell_table(text: Callable[[Cell], str]) -> list[str]:
    headings = ["width \\ batch", *map(str, GRID_BATCHES)]
    return table(headings, [[str(width), *(text((width, batch)) for batch in GRID_BATCHES)] for width in GRID_WIDTHS])


def summary_of(ratios: Mapping[Cell, float]) -> list[str]:
    if not ratios:
        return []
    low, median, high = np.percentile(list(ratios.values()), [5, 50, 95])
    within = np.mean([1 / 1.25 <= ratio <= 1.25 for ratio in ratios.values()])
    farthest = max(ratios, key=lambda cell: abs(np.log(ratios[cell])))
    return [
        f"Prediction / measurement over {len(ratios)} cells: median {median:.2f}, 90 % of them in "
        f"{low:.2f}-{high:.2f}, {within:.0%} within a factor of 1.25; the farthest is width {farthest[0]}, "
        f"batch {farthest[1]} with {ratios[farthest]:.2f}.",
        "",
    ]


def cliff_lines(speed: Mapping[Cell, float]) -> list[str]:
    found = cliffs(speed)
    if not found:
        return [f"No cell is {CLIFF}x slower per FLOP than both its neighbours along an axis.", ""]
    rows = [[f"width {w}, batch {b}", axis, f"{slower:.2f}x"] for (w, b), axis, slower in found]
    return table(["cliff", "along", "slower per FLOP than both neighbours"], rows)
