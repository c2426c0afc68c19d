"""The charts of a report as PNG; matplotlib is imported here alone."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .engines import PEERS
from .results import Results, Subject
from .sections.grid import best_seconds, flops_per_second, predictions
from .sections.predict import SINGLE
from .workloads import GRID_BATCHES, GRID_WIDTHS

OWN, FLOOR = Subject("fastnn"), Subject("floor")
COLORS = dict(zip(PEERS, mpl.colormaps["tab10"].colors, strict=False))


def save(figure: plt.Figure, folder: Path, name: str) -> str:
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path.name


def ratios(results: Results, folder: Path) -> str | None:
    """How many times as fast as each peer, one thread, on a logarithmic axis."""
    cases = results.cases("steps")
    peers = [p for p in PEERS if any(results.ratio("steps", c, Subject(p), OWN) for c in cases)]
    if not peers:
        return None
    figure, axes = plt.subplots(figsize=(max(8.5, 1.8 + 1.5 * len(cases)), 4.8), layout="constrained")
    width = 0.84 / len(peers)
    for i, peer in enumerate(peers):
        for at, case in enumerate(cases):
            if ratio := results.ratio("steps", case, Subject(peer), OWN):
                place = at + (i - (len(peers) - 1) / 2) * width
                # From 1 upwards or downwards: on a logarithmic axis a bar has no natural foot.
                axes.bar(place, ratio.median - 1, width * 0.92, bottom=1, color=COLORS[peer])
                above = ratio.median >= 1
                axes.annotate(
                    f"{ratio.median:.3g}" if ratio.median < 100 else f"{ratio.median:.0f}",
                    (place, ratio.median),
                    (0, 3 if above else -3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                    rotation=90,
                    fontsize=7,
                )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low / 1.7, 0.7), high * 2)
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xticks(range(len(cases)), cases)
    axes.set_ylabel("time of the peer / time of fastnn")
    axes.set_title("Training steps, one thread, medians: above 1, fastnn is faster")
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLORS[peer]) for peer in peers]
    figure.legend(handles, [Subject(peer).label for peer in peers], loc="outside lower center", ncols=4)
    return save(figure, folder, "ratios")


def floors(results: Results, folder: Path) -> str | None:
    """Fraction of the floor: fastnn and the best peer."""
    cases = [(section, case) for section in ("steps", "predict") for case in results.cases(section)]
    cases = [pair for pair in cases if results.ratio(*pair, FLOOR, OWN)]
    if not cases:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 1.4 + 0.5 * len(cases)), layout="constrained")
    for at, (section, case) in enumerate(cases):
        peer = results.best_peer(section, case, OWN)
        for subject, shift, color in ((OWN, -0.2, "tab:blue"), (peer, 0.2, "silver")):
            if subject and (ratio := results.ratio(section, case, FLOOR, subject)):
                shown = min(100 * ratio.median, 110)  # more than 100 % is a floor that was disturbed
                axes.barh(at + shift, shown, 0.38, color=color)
                name = "" if subject == OWN else f"  {subject.label}"
                place = shown + 0.7, at + shift
                axes.text(*place, f"{ratio.median:.0%}{name}", va="center", fontsize=8, clip_on=False)
    axes.set_yticks(range(len(cases)), [case for _, case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, 130)
    axes.set_xticks(range(0, 101, 20))
    axes.axvline(100, color="black", linewidth=1, zorder=0)
    axes.set_xlabel("% of the floor, one thread: FMA peak, or bandwidth where one row is computed")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in ("tab:blue", "silver")]
    figure.legend(handles, ["fastnn", "best peer"], loc="outside lower center", ncols=2)
    return save(figure, folder, "floor")


def latency(results: Results, folder: Path) -> str | None:
    """How many single calls took longer than t."""
    cases = results.cases(SINGLE)
    if not cases:
        return None
    figure, grid = plt.subplots(1, len(cases), figsize=(6.2 * len(cases), 4.6), layout="constrained", squeeze=False)
    names = {}
    for axes, case in zip(grid[0], cases, strict=True):
        for subject in results.subjects(SINGLE):
            rounds = results.rounds(SINGLE, case, subject)
            if not rounds:
                continue
            samples = np.sort(np.concatenate(rounds)) * 1e6
            color = COLORS.get(subject.engine, "black")
            style = "--" if subject.engine == "fastnn_folded" else "-"
            wide = 2.2 if subject.engine.startswith("fastnn") else 1.3
            share = 1 - np.arange(samples.size) / samples.size
            (line,) = axes.step(samples, share, style, color=color, linewidth=wide)
            names[subject.label] = line
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("t, µs")
        axes.set_ylabel("share of single calls that take longer than t")
        axes.set_title(f"predict {case}")
        axes.grid(alpha=0.3)
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=5)
    return save(figure, folder, "latency")


def threads(results: Results, folder: Path) -> str | None:
    """Speed-up by more threads, with the quartiles of the rounds."""
    cases = results.cases("scaling")
    counts = [s for s in results.subjects("scaling") if s.threads > 1]
    if not counts:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 1.4 + 0.32 * len(cases) * len(counts)), layout="constrained")
    height = 0.8 / len(counts)
    for i, subject in enumerate(counts):
        color = plt.get_cmap("viridis")(i / len(counts))
        for at, case in enumerate(cases):
            if ratio := results.ratio("scaling", case, OWN, subject):
                place = at + (i - (len(counts) - 1) / 2) * height
                noise = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
                label = f"{subject.threads} threads" if at == 0 else None
                axes.barh(place, ratio.median, height * 0.9, color=color, xerr=noise, label=label)
                axes.text(ratio.high + 0.03, place, f"{ratio.median:.2f}x", va="center", fontsize=8)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, 1.15 * max(s.threads for s in counts))
    axes.set_xlabel("speed-up over one thread; the whisker shows the quartiles of the rounds")
    figure.legend(loc="outside lower center", ncols=len(counts))
    return save(figure, folder, "threads")


def grid(results: Results, folder: Path) -> str | None:
    """Speed over widths and batches, and the model's prediction of each cell beside its measurement."""
    seconds, predicted = best_seconds(results), predictions(results)
    if not seconds:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5.4), layout="constrained", width_ratios=(1.5, 1))
    heat_map(figure, left, {cell: value / 1e9 for cell, value in flops_per_second(seconds).items()})
    cells = list(predicted)
    measured, expected = ([1e6 * source[cell] for cell in cells] for source in (seconds, predicted))
    dots = right.scatter(measured, expected, c=np.log2([width for width, _ in cells]), cmap="viridis", s=18)
    dots.set_clim(*np.log2([GRID_WIDTHS[0], GRID_WIDTHS[-1]]))
    limits = [0.7 * min([*measured, *expected], default=1), 1.4 * max([*measured, *expected], default=1)]
    right.plot(limits, limits, color="black", linewidth=1)
    for factor in (1 / 1.5, 1.5):
        right.plot(limits, [factor * value for value in limits], color="gray", linewidth=0.8, linestyle=":")
    right.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    right.set_xlabel("measured, µs per step")
    right.set_ylabel("predicted, µs per step")
    right.set_title("Prediction and measurement; dotted: a factor of 1.5")
    bar = figure.colorbar(dots, ax=right, label="width", ticks=np.log2(GRID_WIDTHS))
    bar.ax.set_yticklabels(GRID_WIDTHS)
    return save(figure, folder, "grid")


def heat_map(figure: plt.Figure, axes: plt.Axes, gigaflops: dict[tuple[int, int], float]) -> None:
    """Cells that were not measured stay white."""
    values = np.array([[gigaflops.get((width, batch), np.nan) for batch in GRID_BATCHES] for width in GRID_WIDTHS])
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis", norm=mpl.colors.LogNorm())
    bright = np.nanmax(values) / 3
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            color = "black" if value > bright else "white"
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(GRID_BATCHES)), GRID_BATCHES)
    axes.set_yticks(range(len(GRID_WIDTHS)), GRID_WIDTHS)
    axes.set_xlabel("batch")
    axes.set_ylabel("width")
    axes.set_title("Training steps of W-W-W-10, GFLOP/s, one thread")
    figure.colorbar(image, ax=axes)


CHARTS = {
    "Ratios": ratios,
    "Fraction of the floor": floors,
    "Latency of single calls": latency,
    "Thread scaling": threads,
    "Grid of widths and batches": grid,
}


def draw(results: Results, folder: Path) -> dict[str, str]:
    """{title: file} of the charts that there are measurements for."""
    drawn = {title: chart(results, folder) for title, chart in CHARTS.items()}
    return {title: name for title, name in drawn.items() if name}
