"""What a fit has recorded, epoch by epoch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _draw, metrics

__all__ = ["History"]


def direction(monitor: str, mode: str) -> str:
    """ "min" or "max": which values of `monitor` are better; mode "auto" knows the built-in names."""
    if mode != "auto":
        return mode
    name = monitor.removeprefix("val_")
    if name in metrics.RISING or (name.startswith("top_") and name.endswith("_accuracy")):
        return "max"
    if name in metrics.FALLING:
        return "min"
    raise ValueError(f"mode='auto' cannot tell whether {monitor!r} should fall or rise: give mode='min' or mode='max'.")


class Best:
    """The best value so far: it must beat the one before by more than `min_delta`, so NaN never does."""

    def __init__(self, mode: str, min_delta: float = 0.0) -> None:
        self._sign = 1.0 if mode == "min" else -1.0
        self._min_delta = min_delta
        self.value: float | None = None
        self.epoch: int | None = None

    def update(self, epoch: int, value: float) -> bool:
        """Whether `value` is the new best."""
        if self.value is None:
            better = value == value
        else:
            better = self._sign * value < self._sign * self.value - self._min_delta
        if better:
            self.value, self.epoch = value, epoch
        return better

    def load(self, value: Any, epoch: Any) -> None:
        """Go on from what `value` and `epoch` of another one were."""
        none = value is None and epoch is None
        if not none and (not isinstance(value, float) or value != value or type(epoch) is not int or epoch < 0):
            raise ValueError(f"the best value and its epoch cannot be {value!r} and {epoch!r}.")
        self.value, self.epoch = value, epoch


class History(Mapping[str, list[float]]):
    """A mapping of lists with one entry per finished epoch of one `Trainer.fit`.

    ``loss`` (row-weighted mean data loss in training mode), ``penalty``, the metrics, ``val_loss`` (data loss in
    evaluation mode) and ``val_`` metrics, ``lr`` (of the last step) and ``seconds``.

    Attributes
    ----------
    stopped_because : str
        Why the fit ended.
    """

    def __init__(self, monitor: str | None = None, mode: str = "auto", min_delta: float = 0.0) -> None:
        self._columns: dict[str, list[float]] = {}
        self._monitor, self._mode, self._min_delta = monitor, mode, min_delta
        self.stopped_because = "not finished"

    def __getitem__(self, name: str) -> list[float]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"History({self.epochs} epochs of {', '.join(self)}; {self.stopped_because})"

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self._columns.get("loss", ()))

    @property
    def best_epoch(self) -> int | None:
        """Counted from 0: the first best value of what EarlyStopping monitors, by its mode and min_delta; without one
        the first minimum of ``val_loss``, else of ``loss``. None before the first epoch.
        """
        monitor = self._monitor or ("val_loss" if "val_loss" in self._columns else "loss")
        best = Best(direction(monitor, self._mode), self._min_delta)
        for epoch, value in enumerate(self._columns.get(monitor, ())):
            best.update(epoch, value)
        return best.epoch

    def append(self, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            self._columns.setdefault(name, []).append(value)

    def extend(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Append the epochs of other columns of the same names."""
        for name, values in columns.items():
            self._columns.setdefault(name, []).extend(values)

    def plot(self, path: "str | os.PathLike[str] | None" = None) -> Any:
        """Curves of the loss and of each metric, training and validation together; needs matplotlib.

        Parameters
        ----------
        path : str or path-like, optional
            Also save the picture there.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        return _draw.finish(_draw.curves(self, self.best_epoch), path)
