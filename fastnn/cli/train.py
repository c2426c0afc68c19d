"""``fastnn train``: the recipe, its options, the report, and one model file."""

import argparse
import math
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fn
from fastnn import tables

from .models import score
from .options import InputError, count, not_negative, positive, probability, seed, share, widths
from .task import Task, task_of_arrays, task_of_table

__all__ = ["add_options", "run"]

EPOCHS = 60
LEAST_STEPS = 3000  # a small table is passed more often


def add_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "data",
        help="a table (CSV, or Parquet if it is named .parquet or .pq); 'digits'; or an .npz file with x and y, or "
        "x_train, y_train, x_test and y_test (y of integers or strings: classes, of floats: regression)",
    )
    option("--target", metavar="COLUMN", help="the column of a table to predict; all others are features")
    option(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="what a table's target is; auto: texts, booleans and few different whole numbers are classes",
    )
    option("--test-share", type=share, default=0.2, help="share of a table's rows that is held out for the final score")
    option("--hidden", type=widths, default="256,256,256", help="units of the hidden layers")
    option(
        "--epochs",
        type=count,
        help=f"passes over the training samples at most, in which the rate rises and falls once; None: {EPOCHS}, or up "
        f"to 300 if that is less than {LEAST_STEPS} steps",
    )
    option("--batch-size", type=count, help="samples per step; None: a thirtieth of them, from 16 to 256")
    option(
        "--learning-rate",
        type=positive,
        help="of Adam at the peak of its one cycle; None: 0.004 with batch normalisation, 0.001 without",
    )
    option(
        "--batch-norm",
        choices=("auto", "on", "off"),
        default="auto",
        help="normalise batches behind every hidden layer; auto: for classes, because its noise costs a regression "
        "more than it gains",
    )
    option("--dropout", type=probability, help="probability of dropping a hidden unit; None: 0.05 for classes, else 0")
    option("--label-smoothing", type=probability, default=0.05, help="share of each target spread over all classes")
    option("--l2", type=not_negative, default=1e-5, help="factor of the L2 penalty")
    option("--clip-norm", type=positive, default=1.0, help="largest norm of the gradient")
    option("--patience", type=count, help="epochs without a better validation loss before stopping; None: half of all")
    option("--seed", type=seed, default=0, help="of the rows held out, initial weights, dropout and shuffling")
    option(
        "--dtype",
        choices=("float32", "float64"),
        help="of weights and arithmetic; None: float64 where float32 would lose a column's differences, else float32",
    )
    option("--threads", type=count, help="worker threads; None: all processors that may be used")
    option(
        "--out",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="the model's file if it ends in .safetensors, else the folder for it and the picture of the curves",
    )
    option("--quiet", action="store_true", help="print the score and what was saved, no more")


def run(options: argparse.Namespace) -> None:
    """Train, report the score on the test samples, save; after Ctrl-C too, with the best weights so far."""
    model = _place_of_model(options)
    task = _task(options)
    _choose(options, task)
    net = _network(task, options)
    if not options.quiet:
        _describe(task, net, options)
    with _first_interrupt() as interrupt:
        history = _fit(net, task, options, interrupt)
        print("test " + score(net, *task.test, _loss(task)) if len(task.test[0]) else "no test samples")
        if task.encoder is not None:
            task.encoder.attach(net)
        elif task.classes is not None:
            tables.set_class_names(net, task.classes)
        net.save(model)
        print(f"model saved in {model}")
    if interrupt.came:
        raise KeyboardInterrupt
    _save_curves(history, model.with_name(f"{model.stem}-curves.png"))


# ---- what to do ----


def _place_of_model(options: argparse.Namespace) -> Path:
    """The model's file; its folder is made and tried, because after hours of training is too late."""
    out: Path = options.out
    model = out if out.suffix == ".safetensors" else out / f"{Path(options.data).stem}.safetensors"
    folder = model.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"--out: cannot write into {folder}: {error.strerror or error}") from error
    if model.is_dir():
        raise InputError(f"--out: cannot write {model}: it is a folder")
    return model


def _task(options: argparse.Namespace) -> Task:
    if options.data == "digits" or options.data.endswith(".npz"):
        if options.target is not None:
            raise InputError(f"--target names a column of a table, but {options.data} has the array y")
        return task_of_arrays(options.data)
    if options.target is None:
        raise InputError(f"--target is needed: which column of {options.data} is to be predicted?")
    return task_of_table(options.data, options.target, options.task, options.test_share, options.seed)


def _choose(options: argparse.Namespace, task: Task) -> None:
    """Fill in what was left to the recipe."""
    rows = len(task.train[0])
    if options.batch_size is None:
        options.batch_size = min(256, max(16, 2 ** int(math.log2(max(1, rows / 30)))))
    options.batch_size = min(options.batch_size, rows)
    if options.epochs is None:
        steps = math.ceil(rows / options.batch_size)
        options.epochs = min(300, max(EPOCHS, math.ceil(LEAST_STEPS / steps)))
    if options.patience is None:
        options.patience = max(1, options.epochs // 2)
    classes = task.classes is not None
    if options.batch_norm == "auto":
        options.batch_norm = "on" if classes and options.batch_size > 1 else "off"
    if options.learning_rate is None:
        options.learning_rate = 4e-3 if options.batch_norm == "on" else 1e-3
    if options.dropout is None:
        options.dropout = 0.05 if classes else 0.0
    if options.dtype is None:
        options.dtype = task.dtype


def _network(task: Task, options: argparse.Namespace) -> fn.Sequential:
    layers: list[Any] = [task.first]
    for units in options.hidden:
        layers += [
            fn.Dense(units, init="he_normal"),
            *([fn.BatchNorm()] if options.batch_norm == "on" else ()),
            fn.ReLU(),
        ]
        layers += [fn.Dropout(options.dropout)] if options.dropout else []
    layers.append(fn.Dense(task.outputs))
    net = fn.Sequential(layers, input_size=task.train[0].shape[1], dtype=options.dtype, seed=options.seed)
    if task.statistics is not None:
        views = net.parameters()
        views["0.mean"][...], views["0.scale"][...] = task.statistics
    return net


def _loss(task: Task) -> str:
    return "cross_entropy" if task.classes is not None else "mse"


def _describe(task: Task, net: fn.Sequential, options: argparse.Namespace) -> None:
    if task.report:
        print(task.report)
    net.summary()
    names = ("epochs", "batch_size", "learning_rate", "label_smoothing", "l2", "clip_norm", "patience", "seed")
    print("options: " + ", ".join(f"{name.replace('_', '-')} {getattr(options, name)}" for name in names))


# ---- training ----


class _Interrupt(fn.Callback):
    """Ctrl-C ends the fit as early stopping would, also one that is only about to begin."""

    came = False

    def on_fit_begin(self) -> None:
        if self.came:
            self.trainer.request_stop("interrupted")

    def __call__(self) -> None:
        self.came = True
        if hasattr(self, "trainer"):
            self.trainer.request_stop("interrupted")


def _fit(net: fn.Sequential, task: Task, options: argparse.Namespace, interrupt: _Interrupt) -> fn.History:
    """Train; the targets of a regression are standardised meanwhile."""
    classes = task.classes is not None
    trainer = fn.Trainer(
        net,
        loss=fn.losses.CrossEntropy(label_smoothing=options.label_smoothing) if classes else "mse",
        optimizer=fn.Adam(fn.schedules.one_cycle(options.learning_rate, options.epochs, per="epoch")),
        clip=fn.ClipNorm(options.clip_norm),
        regularizer=fn.L2(options.l2),
        metrics=("accuracy",) if classes else (),
        batch_size=options.batch_size,
        n_threads=options.threads,
    )
    (x, y), (x_validation, y_validation) = task.train, task.validation
    mean, scale = np.zeros(1), np.ones(1)
    if not classes:
        mean, scale = y.mean(axis=0, dtype=np.float64), y.std(axis=0, dtype=np.float64)
        scale[scale == 0] = 1
        y, y_validation = (y - mean) / scale, (y_validation - mean) / scale
    history = trainer.fit(
        x,
        y,
        epochs=options.epochs,
        validation_data=(x_validation, y_validation),
        verbose=0 if options.quiet else 1,
        callbacks=[fn.EarlyStopping(patience=options.patience, restore_best=True), interrupt],
    )
    if not classes:
        _predict_in_units(net, mean, scale)
    return history


def _predict_in_units(net: fn.Sequential, mean: Any, scale: Any) -> None:
    """Put the mean and the scale of the targets into the last layer."""
    views, last = net.parameters(), len(net.layers) - 1
    weight, bias = views[f"{last}.weight"], views[f"{last}.bias"]
    weight[...] = weight.astype(np.float64) * scale
    bias[...] = bias.astype(np.float64) * scale + mean


@contextmanager
def _first_interrupt() -> Iterator[_Interrupt]:
    """Within, the first Ctrl-C only ends the fit: what follows it, to the saved model, is done. A second one ends the
    program.
    """
    interrupt = _Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield interrupt
        return

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        interrupt()

    signal.signal(signal.SIGINT, stop)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _save_curves(history: fn.History, path: Path) -> None:
    try:
        history.plot(path)
        print(f"curves saved in {path}")
    except ImportError as error:
        print(f"no picture of the curves: {error}")
