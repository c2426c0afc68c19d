"""Trained models and the data they are used on."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import fastnn as fn
from fastnn import tables
from fastnn.datasets import load_digits

from . import arrays
from .options import InputError
from .task import read_table

__all__ = ["Model", "load", "score"]

Array = npt.NDArray[Any]


@dataclass
class Model:
    """A net with what stands beside it in its file.

    Attributes
    ----------
    classes : tuple of str, or None
        None for a regression.
    encoder : Encoder or None
        None for a net that takes plain columns of numbers.
    """

    net: fn.Sequential
    classes: tuple[str, ...] | None
    encoder: tables.Encoder | None

    @property
    def loss(self) -> str:
        if self.classes is None:
            return "mse"
        return "cross_entropy" if self.net.output_size > 1 else "binary_cross_entropy"

    def features(self, path: str) -> Array:
        """The features of a data file, a row per row of the file."""
        if path == "digits":
            return load_digits()[1][0]
        if path.endswith(".npz"):
            return arrays.read_features(path)
        frame = read_table(path)
        return self._encoded(frame) if self.encoder else self._plain(frame, path)

    def samples(self, path: str, target: str | None) -> tuple[Array, Array, int]:
        """Features and targets of the rows that have a target, and how many have none."""
        if path == "digits":
            x, y = load_digits()[1]
            return x, self._numbers_of(y), 0
        if path.endswith(".npz"):
            x, y = arrays.read_pair(path)
            return x, self._numbers_of(y), 0
        frame = read_table(path)
        if self.encoder is not None:
            if target not in (None, self.encoder.target):
                raise InputError(f"--target: the model was trained on {self.encoder.target!r}, not {target!r}")
            found = self.encoder.target_of(frame)
            x = self._encoded(frame[found.known])
        else:
            if target is None:
                raise InputError("--target is needed: the model does not name the column it predicts")
            found = tables.Encoder((), target, self.classes).target_of(frame)
            x = self._plain(frame[found.known].drop(columns=target), path)
        return x, found.values, int((~found.known).sum())

    def _encoded(self, frame: Any) -> Array:
        """The features of a table; a note on standard error names the columns of which nothing was understood."""
        assert self.encoder is not None
        x = self.encoder.encode(frame)
        for name in self.encoder.strange(frame):
            print(f"fastnn: note: the model knows none of the values of the column {name!r}.", file=sys.stderr)
        return x

    def _plain(self, frame: Any, path: str) -> Array:
        """All columns of a table, as numbers without gaps."""
        if len(frame.columns) != self.net.input_size:
            raise InputError(
                f"{path} has {len(frame.columns)} columns, but the net has {self.net.input_size} inputs and no names"
            )
        columns = [tables.Column(name, "number", np.nan).encode(frame[name]) for name in frame.columns]
        for name, values in zip(frame.columns, columns, strict=True):
            if np.isnan(values).any():
                row = int(np.argmax(np.isnan(values[:, 0]))) + 1
                raise InputError(
                    f"column {name!r}, row {row} has no value, and the model does not know what stands for it"
                )
        return np.concatenate(columns, axis=1)

    def _numbers_of(self, y: Array) -> Array:
        """Class numbers of labels; the targets of a regression stay."""
        if self.classes is None:
            return y
        number_of = {name: i for i, name in enumerate(self.classes)}
        labels, places = np.unique(y.ravel(), return_inverse=True)
        unknown = [label for label in map(str, labels.tolist()) if label not in number_of]
        if unknown:
            raise InputError(f"y has the label {unknown[0]!r}, which is not among the model's classes")
        return np.array([number_of[label] for label in map(str, labels.tolist())])[places]


def load(path: str) -> Model:
    """The model of a file."""
    try:
        net = fn.load(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    encoder = tables.Encoder.of(net)
    classes = encoder.classes if encoder else tables.class_names(net)
    if classes is None and encoder is None and _gives_probabilities(net):
        classes = tuple(map(str, range(max(2, net.output_size))))
    return Model(net, classes, encoder)


def _gives_probabilities(net: fn.Sequential) -> bool:
    try:
        net.predict_proba(np.zeros((1, net.input_size)))
    except ValueError:
        return False
    return True


def score(net: fn.Sequential, x: Array, y: Array, loss: str) -> str:
    """A line: how well the net does on these samples."""
    if loss == "mse":
        found = net.evaluate(x, y, loss=loss, metrics=("r2", "rmse", "mae"))
        mse, r2, rmse, mae = found.values()
        return f"MSE {mse:.6g}, R^2 {r2:.4f} on {len(x)} samples, RMSE {rmse:.6g}, MAE {mae:.6g}"
    two = net.output_size <= 2
    found = net.evaluate(x, y, loss=loss, metrics=("accuracy", "f1", *(("auc",) if two else ())))
    auc = f", AUC {found['auc']:.4f}" if two else ""
    others = f"cross-entropy {found['loss']:.4f}, F1 {found['f1']:.4f}{auc}"
    return f"accuracy {found['accuracy']:.4f} on {len(x)} samples, {others}"
