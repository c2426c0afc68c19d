"""The command line: ``fastnn train | predict | evaluate | inspect | diagnose | export | config``, a module for each.

Exit codes: 0 done, 1 training or saving failed or nobody reads the output any more, 2 wrong usage or unusable data, 130
interrupted (``train`` has then saved the best weights so far).
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import fastnn as fn

from . import diagnose, evaluate, export, inspect, predict, train
from .options import InputError, Parser

__all__ = ["main", "make_parser"]

COMMANDS: dict[str, tuple[Any, str]] = {
    "train": (train, "train a network, print its test score, save it and draw its curves"),
    "predict": (predict, "predict the target of each row of a data file"),
    "evaluate": (evaluate, "print how well a model predicts the targets of a data file"),
    "inspect": (inspect, "show a model's layers, parameters, preprocessing and classes"),
    "diagnose": (diagnose, "say in words what is wrong with a model on a data file"),
    "export": (export, "write a trained network as C or ONNX"),
}


def make_parser() -> Parser:
    parser = Parser(prog="fastnn", description="Fully connected neural networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastnn {fn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)

    def add(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help, description=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    for name, (module, help) in COMMANDS.items():
        module.add_options(add(name, help))
    add("config", "show version, instruction set, threads and compiler")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = make_parser().parse_args(arguments)
        if options.command == "config":
            fn.show_config()
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Training interrupted")  # the exit says so
                COMMANDS[options.command][0].run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
        return 1
    except KeyboardInterrupt:
        return fail(130, "interrupted")
    except (fn.DivergenceError, ImportError, MemoryError, OSError, RuntimeError) as error:
        return fail(1, error)
    except (InputError, ValueError) as error:
        return fail(2, error)
    return 0


def fail(code: int, reason: object) -> int:
    print(f"fastnn: error: {reason}", file=sys.stderr)
    return code
