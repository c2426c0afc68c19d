"""``fastnn evaluate``: how well a model does on a data file."""

import argparse

from . import models
from .options import add_model, add_samples

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_samples(parser)


def run(options: argparse.Namespace) -> None:
    model = models.load(options.model)
    x, y, left_out = model.samples(options.data, options.target)
    if left_out:
        print(f"{left_out} row(s) without target left out")
    print(models.score(model.net, x, y, model.loss))
