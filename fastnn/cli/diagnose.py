"""``fastnn diagnose``: what is wrong with a net on given data, in words."""

import argparse

import fastnn as fn

from . import models
from .options import add_model, add_samples

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_samples(parser)


def run(options: argparse.Namespace) -> None:
    model = models.load(options.model)
    x, y, _ = model.samples(options.data, options.target)
    print(fn.diagnose(model.net, x, y, loss=model.loss))
