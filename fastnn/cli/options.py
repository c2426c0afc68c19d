"""What the commands' parsers share: arguments and their types, and errors as one sentence."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = [
    "InputError",
    "Parser",
    "add_model",
    "add_samples",
    "count",
    "not_negative",
    "positive",
    "probability",
    "seed",
    "share",
    "widths",
]


class InputError(Exception):
    """The arguments or the data cannot be used; the message is the sentence the user reads."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def number(kind: Callable[[str], Any], accept: Callable[[Any], bool], description: str) -> Callable[[str], Any]:
    """An argument type: a number of this kind in the described range."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accept(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return parse


count = number(int, lambda n: n >= 1, "a whole number of at least 1")
positive = number(float, lambda a: 0 < a < float("inf"), "a number above 0")
not_negative = number(float, lambda a: 0 <= a < float("inf"), "a number of at least 0")
probability = number(float, lambda p: 0 <= p < 1, "a probability, at least 0 and below 1")
share = number(float, lambda p: 0 <= p <= 0.9, "a share, at least 0 and at most 0.9")
seed = number(int, lambda n: 0 <= n < 2**64, "a whole number from 0 to 2^64 - 1")


def widths(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model file, as train and Sequential.save write it")


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Data with targets."""
    parser.add_argument(
        "data", help="a table with features and target; an .npz file with x_test and y_test, or x and y; or 'digits'"
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="the column to predict; None: the one that the model was trained for"
    )
