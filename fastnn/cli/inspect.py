"""``fastnn inspect``: what is in a model file."""

import argparse
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnn as fn

from . import models
from .options import add_model
from .task import describe_classes, describe_columns

__all__ = ["add_options", "run"]

BINS = 24


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)


def run(options: argparse.Namespace) -> None:
    """Layers, parameters with their norms and histograms, preprocessing, classes."""
    model = models.load(options.model)
    model.net.summary()
    print()
    print("\n".join(_table(_tensors(model.net))))
    print()
    if model.encoder is None:
        print("preprocessing: none, the features are plain columns of numbers")
    else:
        print(f"preprocessing: {len(model.encoder.columns)} columns, {model.net.input_size} features")
        print("\n".join(describe_columns(model.encoder.columns)))
    name = f" {model.encoder.target!r}" if model.encoder else ""
    print(f"target{name}: {describe_classes(model.classes)}")


def _tensors(net: fn.Sequential) -> list[list[str]]:
    rows = [["tensor", "shape", "norm", "min", "mean", "max", "histogram, min to max"]]
    for name, view in net.parameters().items():
        values = view.astype(np.float64)
        numbers = (np.linalg.norm(values), values.min(), values.mean(), values.max())
        shape = " x ".join(map(str, view.shape))
        rows.append([name, shape, *(f"{number:.4g}" for number in numbers), _histogram(values)])
    return rows


def _histogram(values: npt.NDArray[Any]) -> str:
    """The number of values in each of the bins between the least and the largest, as heights of characters."""
    if values.min() == values.max():
        return "all equal"
    heights = "▁▂▃▄▅▆▇█" if "utf" in (sys.stdout.encoding or "").lower() else ".:-=+*#@"
    low, high = values.min(), values.max()
    bins = np.minimum((values.ravel() / 2 - low / 2) / (high / 2 - low / 2) * BINS, BINS - 1).astype(int)
    counts = np.bincount(bins, minlength=BINS)
    places = np.ceil(counts / counts.max() * len(heights)).astype(int)
    return "".join(heights[place - 1] if place else " " for place in places)


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
