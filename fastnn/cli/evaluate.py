"""``fastnn evaluate``: how well a model does on a data file."""

import argparse

from . import models

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model file, as train and Sequential.save write it")
    parser.add_argument(
        "data", help="a table with features and target; an .npz file with x_test and y_test, or x and y; or 'digits'"
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="the column to predict; None: the one that the model was trained for"
    )


def run(options: argparse.Namespace) -> None:
    model = models.load(options.model)
    x, y, left_out = model.samples(options.data, options.target)
    if left_out:
        print(f"{left_out} row(s) without target left out")
    print(models.score(model.net, x, y, model.loss))
