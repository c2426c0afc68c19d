"""The command line: ``fastnn train digits``, ``fastnn train data.npz``, ``fastnn export MODEL --to c``, ``config``.

Exit codes: 0 done, 1 training or saving failed or nobody reads the output any more, 2 wrong usage or unusable data, 130
interrupted.
"""

import argparse
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

import fastnn as fn
from fastnn.datasets import load_digits

Array = npt.NDArray[Any]


class InputError(Exception):
    """The data cannot be used; the message is the sentence the user reads."""


# ---- data ----


@dataclass
class Task:
    """Training and test samples; targets are class numbers, or standardised values of a regression."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array
    classes: Array | None  # label of each class number; None: regression
    scale: Array  # standard deviation of regression targets, in their own unit

    @property
    def outputs(self) -> int:
        return len(self.classes) if self.classes is not None else int(np.prod(self.y.shape[1:]))


def hold_out(x: Array, y: Array, every: int) -> tuple[Array, Array, Array, Array]:
    """Split off each ``every``-th sample: fair also where the samples are sorted by class."""
    held = np.arange(len(x)) % every == every - 1
    return x[~held], y[~held], x[held], y[held]


def read_arrays(path: str) -> dict[str, Array]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is a single array, not an .npz archive")
        with archive:
            return {name.lower(): archive[name] for name in archive.files}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not an .npz archive of plain arrays") from error


def read_samples(path: str) -> tuple[Array, Array, Array, Array]:
    arrays = read_arrays(path)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        parts = (arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"])
    elif {"x", "y"} <= arrays.keys():
        check_samples(path, arrays["x"], arrays["y"])
        parts = hold_out(arrays["x"], arrays["y"], every=5)
    else:
        raise InputError(f"{path} needs arrays x and y, or x_train, y_train, x_test and y_test; it has {list(arrays)}")
    for x, y in (parts[:2], parts[2:]):
        check_samples(path, x, y)
    for name, trained, tested in (("x_test", parts[0], parts[2]), ("y_test", parts[1], parts[3])):
        if trained.shape[1:] != tested.shape[1:]:
            raise InputError(f"{path}: {name} {tested.shape} must have the columns of training, {trained.shape[1:]}")
    return parts


def check_samples(path: str, x: Array, y: Array) -> None:
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or x.size == 0:
        raise InputError(f"{path}: x {x.shape} and y {y.shape} must have one row per sample each")
    if x.dtype.kind not in "biuf" or y.dtype.kind not in "biufU":
        raise InputError(f"{path}: x ({x.dtype}) and y ({y.dtype}) must be numbers; y may be strings")
    if y.dtype.kind != "f" and y.size != len(y):
        raise InputError(f"{path}: y {y.shape} of {y.dtype} must be one label per sample")


def make_task(x: Array, y: Array, x_test: Array, y_test: Array) -> Task:
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    if y.dtype.kind == "f":
        y, y_test = y.reshape(len(y), -1), y_test.reshape(len(y_test), -1)
        mean, scale = y.mean(axis=0, dtype=np.float64), y.std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1
        return Task(x, (y - mean) / scale, x_test, (y_test - mean) / scale, None, scale)
    classes, numbers = np.unique(np.concatenate([y.ravel(), y_test.ravel()]), return_inverse=True)
    if len(classes) == 1:
        raise InputError("y has 1 class; at least 2 are needed")
    return Task(x, numbers[: len(y)], x_test, numbers[len(y) :], classes, np.ones(1))


# ---- training ----


def build_network(task: Task, options: argparse.Namespace) -> fn.Sequential:
    integers = task.x.dtype == np.uint8
    layers: list[Any] = [fn.Scale(1 / max(1, int(task.x.max()))) if integers else fn.Standardize()]
    for units in options.hidden:
        layers += [fn.Dense(units, init="he_normal"), fn.BatchNorm(), fn.ReLU(), fn.Dropout(options.dropout)]
    layers.append(fn.Dense(task.outputs))
    return fn.Sequential(layers, input_size=task.x.shape[1], dtype=options.dtype, seed=options.seed)


def report_score(net: fn.Sequential, task: Task) -> None:
    if task.classes is not None:
        accuracy = net.evaluate(task.x_test, task.y_test, loss="cross_entropy", metrics=("accuracy",))["accuracy"]
        print(f"test accuracy {accuracy:.4f} on {len(task.x_test)} samples")
        return
    error = net.predict(task.x_test) - task.y_test
    mse = np.mean((error * task.scale) ** 2)
    r2 = 1 - np.mean(error**2) / np.mean((task.y_test - task.y_test.mean(axis=0)) ** 2)
    print(f"test MSE {mse:.6g}, R^2 {r2:.4f} on {len(task.x_test)} samples")


def prepare_folder(path: Path) -> None:
    """Make the folder and write into it, because after hours of training is too late to find that it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(f"--out: cannot write into {path}: {error.strerror or error}") from error


def save_curves(history: fn.History, path: Path) -> None:
    try:
        history.plot(path)
        print(f"curves saved in {path}")
    except ImportError as error:
        print(f"no picture of the curves: {error}")


def train(options: argparse.Namespace) -> None:
    prepare_folder(options.out)
    if options.data == "digits":
        (x, y), (x_test, y_test) = load_digits()
        task = make_task(x, y, x_test, y_test)
    else:
        task = make_task(*read_samples(options.data))
    x, y, x_validation, y_validation = hold_out(task.x, task.y, every=10)
    if len(x_validation) == 0:
        raise InputError(f"{len(task.x)} training samples are too few: every tenth one is held out for validation")

    net = build_network(task, options)
    trainer = fn.Trainer(
        net,
        loss="cross_entropy" if task.classes is not None else "mse",
        optimizer=fn.Adam(options.learning_rate),
        clip=fn.ClipNorm(options.clip_norm),
        regularizer=fn.L2(options.l2),
        metrics=("accuracy",) if task.classes is not None else (),
        batch_size=min(options.batch_size, len(x)),
        n_threads=options.threads,
    )
    if not options.quiet:
        net.summary()
    history = trainer.fit(
        x,
        y,
        epochs=options.epochs,
        validation_data=(x_validation, y_validation),
        verbose=0 if options.quiet else 1,
        callbacks=[fn.EarlyStopping(patience=options.patience, restore_best=True)],
    )
    report_score(net, task)
    model = options.out / f"{Path(options.data).stem}.safetensors"
    net.save(model)
    print(f"model saved in {model}")
    save_curves(history, options.out / f"{Path(options.data).stem}-curves.png")


# ---- export ----


def export(options: argparse.Namespace) -> None:
    from fastnn.export import to_c, to_onnx

    net = fn.load(options.model)
    path = options.out or Path(f"{Path(options.model).stem}.{options.to}")
    written = to_c(net, path, options.name) if options.to == "c" else (to_onnx(net, path),)
    print("written: " + ", ".join(map(str, written)))


# ---- the command ----


class Parser(argparse.ArgumentParser):
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
seed = number(int, lambda n: 0 <= n < 2**64, "a whole number from 0 to 2^64 - 1")


def widths(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def make_parser() -> Parser:
    parser = Parser(prog="fastnn", description="Fully connected neural networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastnn {fn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)

    def options_of(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help, description=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    options_of("config", "show version, instruction set, threads and compiler")
    option = options_of("train", "train a network, print its test score and draw its curves").add_argument
    option(
        "data",
        help="'digits', or an .npz file with x and y, or x_train, y_train, x_test and y_test; "
        "y of integers or strings: classes, y of floats: regression",
    )
    option("--hidden", type=widths, default="256,128", help="units of the hidden layers")
    option("--epochs", type=count, default=60, help="passes over the training samples at most")
    option("--batch-size", type=count, default=128, help="samples per step")
    option("--learning-rate", type=positive, default=2e-3, help="of Adam")
    option("--dropout", type=probability, default=0.3, help="probability of dropping a hidden unit")
    option("--l2", type=not_negative, default=1e-4, help="factor of the L2 penalty")
    option("--clip-norm", type=positive, default=1.0, help="largest norm of the gradient")
    option("--patience", type=count, default=15, help="epochs without a better validation loss before stopping")
    option("--seed", type=seed, default=0, help="of initial weights, dropout and shuffling")
    option("--dtype", choices=("float32", "float64"), default="float32", help="of weights and arithmetic")
    option("--threads", type=count, help="worker threads; None: all processors that may be used")
    option("--out", type=Path, default=Path(), metavar="DIR", help="folder for the model and the picture of the curves")
    option("--quiet", action="store_true", help="print the score alone")
    option = options_of("export", "write a trained network as C or ONNX").add_argument
    option("model", help="a model file, as train and Sequential.save write it")
    option("--to", choices=("c", "onnx"), required=True, help="C99 source and header, or an ONNX graph")
    option("--out", type=Path, metavar="FILE", help="the file; None: named like the model, in the present folder")
    option("--name", help="prefix of all names in C; None: the file's own")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = make_parser().parse_args(arguments)
        if options.command == "config":
            fn.show_config()
        elif options.command == "export":
            export(options)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Training interrupted")  # the exit says so
                train(options)
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
