"""``fastnn diagnose``: what is wrong with a net on given data, in words."""

import argparse

import fastnn as fn

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
    x, y, _ = model.samples(options.data, options.target)
    print(fn.diagnose(model.net, x, y, loss=model.loss))
