"""``fastnn predict``: predictions for a data file, as CSV."""

import argparse
import csv
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import models
from .options import add_model, count

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "data",
        help="a table with the columns that the model was trained on (others do not matter); an .npz file with x_test "
        "or x; or 'digits'",
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="CSV file for the predictions; None: standard output")
    parser.add_argument("--threads", type=count, help="worker threads; None: all processors that may be used")


def run(options: argparse.Namespace) -> None:
    """A row per row of the data: the class and the probability of each, or the value."""
    model = models.load(options.model)
    lines = _lines(model, model.features(options.data), options.threads)
    if options.out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return
    with open(options.out, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    print(f"predictions saved in {options.out}")


def _lines(model: models.Model, x: npt.NDArray[Any], n_threads: int | None) -> Iterator[list[str]]:
    digits = "%.9g" if model.net.dtype == np.float32 else "%.17g"  # reads back as the same number
    if model.classes is None:
        values = model.net.predict(x, n_threads=n_threads)
        outputs = values.shape[1]
        header = ["prediction"] if outputs == 1 else [f"prediction_{i}" for i in range(outputs)]
        first: list[list[str]] = [[] for _ in values]
    else:
        values = model.net.predict_proba(x, n_threads=n_threads)
        if values.shape[1] == 1:
            values = np.column_stack([1 - values, values])
        header = ["prediction", *(f"probability_{name}" for name in model.classes)]
        first = [[model.classes[number]] for number in values.argmax(axis=1)]
    yield header
    for start, row in zip(first, values.tolist(), strict=True):
        yield [*start, *(digits % value for value in row)]
