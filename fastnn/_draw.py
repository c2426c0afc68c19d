"""How the pictures look. matplotlib is imported where a picture is drawn, and nowhere else."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


# Colours that the colour-blind tell apart (Okabe and Ito 2008), and greys.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
DARK, LIGHT = "#555555", "#E8E8E8"

_LARGEST_SAMPLE = 1 << 20  # of the values of a density


def new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportError("plot needs matplotlib, which is not installed: pip install 'fastnn-cpu[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Any, path: "str | os.PathLike[str] | None") -> Any:
    """The figure, also saved where a path is given."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _panels(count: int, width: float, height: float, most: int) -> tuple[Any, list[Any]]:
    """A figure with so many axes of this size, at most `most` of them in a row."""
    rows = -(-count // most)
    columns = -(-count // rows)
    figure = new_figure(width * columns, height * rows)
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", labelsize=8, color=DARK)
    return figure, panels


# ---- epochs ----


def curves(columns: Mapping[str, Sequence[float]], best_epoch: int | None) -> Any:
    """Of a history: the loss and each metric, training and validation together."""
    hidden = ("penalty", "lr", "seconds")
    names = [name for name in columns if name not in hidden and not name.startswith("val_")]
    figure, panels = _panels(max(1, len(names)), 4.6, 3.4, 3)
    for axes, name in zip(panels, names, strict=False):
        shown = [("training", name, BLUE), ("validation", f"val_{name}", ORANGE)]
        for label, column, colour in shown:
            if column in columns:
                _over_epochs(axes, columns[column], color=colour, label=label)
        if best_epoch is not None:
            best = best_epoch + 1
            axes.axvline(best, color=DARK, linestyle=":", linewidth=1.2, label=f"best epoch ({best})")
        axes.set_ylabel(name)
        axes.legend(fontsize=8, frameon=False)
    return figure


def _over_epochs(axes: Any, values: Sequence[float], epochs: Sequence[float] | None = None, **style: Any) -> None:
    """A line, epochs counted from 1; with points where they are few."""
    from matplotlib.ticker import MaxNLocator  # type: ignore[import-not-found,unused-ignore]

    places = range(1, len(values) + 1) if epochs is None else epochs
    axes.plot(places, values, linewidth=1.6, marker="o" if len(values) <= 12 else None, markersize=3.5, **style)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LIGHT)


def layers_over_epochs(
    epochs: Sequence[float], panels: Sequence[tuple[str, bool, Mapping[str, Sequence[float]]]], order: Sequence[str]
) -> Any:
    """One panel per (title, whether it is a share, lines by name); a name has one colour, by its place in `order`."""
    from matplotlib import colormaps  # type: ignore[import-not-found,unused-ignore]
    from matplotlib.ticker import PercentFormatter  # type: ignore[import-not-found,unused-ignore]

    figure, all_axes = _panels(len(panels), 4.2, 3.0, 3)
    shades = colormaps["viridis"](np.linspace(0, 0.88, max(1, len(order))))  # first layers dark
    colours = dict(zip(order, shades, strict=True))
    handles = {}
    for axes, (title, is_share, lines) in zip(all_axes, panels, strict=True):
        for name, values in lines.items():
            _over_epochs(axes, values, epochs, color=colours.get(name, ORANGE))
            if name in colours:
                handles[name] = axes.lines[-1]
        axes.set_title(title, loc="left", fontsize=10)
        if is_share:
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.set_yscale("log")
    shown = [name for name in order if name in handles]
    if shown:
        figure.legend(
            [handles[name] for name in shown],
            shown,
            loc="outside right upper",
            fontsize=8,
            frameon=False,
            ncols=1 + (len(shown) - 1) // 14,
        )
    return figure


# ---- layers ----


def densities(groups: Iterable[tuple[str, Array]], xlabel: str) -> Any:
    """A small panel per group with the density of its values, on an axis of its own, and what it leaves out in words:
    exact zeros where they are many, values that are not finite.
    """
    shown = list(groups)
    figure, panels = _panels(len(shown), 2.9, 2.1, 4)
    per_row = figure.axes[0].get_gridspec().ncols
    for place, (axes, (title, values)) in enumerate(zip(panels, shown, strict=True)):
        said = _density(axes, _some(values))
        axes.set_title(f"{title}\n{said}", loc="left", fontsize=8.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        if place % per_row == 0:
            axes.set_ylabel("density", fontsize=8.5)
        if place + per_row >= len(shown):
            axes.set_xlabel(xlabel, fontsize=8.5)
    return figure


def _some(values: Array) -> Array:
    """All values, or evenly spread ones of very many, in float64."""
    flat = values.reshape(-1)
    return flat[:: -(-flat.size // _LARGEST_SAMPLE) or 1].astype(np.float64)


def _density(axes: Any, values: Array) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "not finite"
    said = [f"mean {finite.mean():.2g}", f"std {finite.std():.2g}"]
    zeros = float((finite == 0).mean())
    if zeros >= 0.02:
        said.append(f"{100 * zeros:.0f} % zero")
    if finite.size < values.size:
        said.append(f"{100 * (1 - finite.size / values.size):.2g} % not finite")
    kept = finite[finite != 0] if 0.02 <= zeros < 1 else finite
    low, high = np.quantile(kept, [0.001, 0.999])
    bins = int(np.clip(2 * np.cbrt(kept.size), 8, 60))
    size = max(abs(low), abs(high))
    if not high - low > 1e-12 * size:
        margin = max(0.5, 1e-3 * size)  # beside a large number 0.5 is nothing
        low, high, bins = low - margin, high + margin, 51  # one bin in the middle
    heights, edges = np.histogram(kept, bins, range=(low, high), density=True)
    axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.85)
    if low < 0 < high:
        axes.axvline(0, color=DARK, linewidth=0.7)
    axes.locator_params(axis="x", nbins=4)
    axes.ticklabel_format(axis="x", scilimits=(-2, 4))
    axes.xaxis.get_offset_text().set_fontsize(8)
    return ", ".join(said)


def norms(layers: Sequence[tuple[str, float]], ratio: float) -> Any:
    """A point per layer on a logarithmic axis, the first layer at the top; grey is more than `ratio` from the last."""
    figure = new_figure(7.0, 1.5 + 0.34 * len(layers))
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    places = np.arange(len(layers))
    values = np.array([value for _, value in layers])
    drawable = np.isfinite(values) & (values > 0)
    axes.set_xscale("log")
    if drawable.any():
        last = values[-1] if drawable[-1] else values[drawable].max()
        low = min(values[drawable].min(), last / ratio) / 20
        high = max(values[drawable].max(), last * ratio) * 200  # room for the numbers
        axes.set_xlim(low, high)
        axes.hlines(places[drawable], low, values[drawable], color=BLUE, linewidth=1.2, alpha=0.4)
        axes.plot(values[drawable], places[drawable], "o", color=BLUE, markersize=7)
    if drawable[-1]:
        for start, end, text, at, side in (
            (low, last / ratio, f"vanishing: below 1/{ratio:g} of the last", 0.0, "left"),
            (last * ratio, high, f"exploding: above {ratio:g} times the last", 1.0, "right"),
        ):
            axes.axvspan(start, end, color=LIGHT, linewidth=0, zorder=0)
            axes.text(at, 1.01, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=8.5, color=DARK)
    for place, value in enumerate(values):
        text = f"  {value:.1e}" if drawable[place] else f"{value:g}"
        axes.text(value if drawable[place] else axes.get_xlim()[0], place, text, va="center", fontsize=8.5)
    axes.set_yticks(places, [name for name, _ in layers], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("norm of the gradient of the weights", fontsize=9)
    return figure
