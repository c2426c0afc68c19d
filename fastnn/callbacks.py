"""What happens between the epochs of a fit."""

import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from ._declare import boolean, choice, integer, number
from .history import Best, History, direction

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "ReduceLROnPlateau"]

Logs = Mapping[str, float]
Array = np.ndarray[Any, Any]


class _Net(Protocol):
    def parameters(self, trainable: bool | None = None) -> dict[str, Array]: ...


class Host(Protocol):
    """What a callback may use of its trainer."""

    lr_factor: float

    @property
    def net(self) -> _Net: ...
    @property
    def log_names(self) -> Collection[str]: ...
    @property
    def failed(self) -> bool: ...
    @property
    def history(self) -> History: ...
    def request_stop(self, reason: str = ...) -> None: ...
    def _end_training(self, reason: str) -> None: ...


class Callback:
    """Base of the callbacks; a plain function ``f(epoch, logs)`` will do where only the end of an epoch matters.

    A callback that remembers something from epoch to epoch, and changes the training by it, defines `state_dict` and
    `load_state_dict`: then a resumed fit goes on as if it had never stopped.

    Attributes
    ----------
    trainer : Trainer
        Set before `on_fit_begin`. ``trainer.net.predict`` works inside callbacks.
    """

    trainer: Host

    def on_fit_begin(self) -> None:
        """Before the first epoch; an error here ends the fit, and only callbacks that began will end. In a resumed fit
        ``trainer.history`` holds the earlier epochs.
        """

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After each epoch, counted from 0; `logs` has the epoch's entry of every column of the history, as a dict of
        the callback's own.
        """

    def on_fit_end(self) -> None:
        """After the last epoch, in the order of the list, also when an error ended the fit (then ``trainer.failed`` is
        true).
        """

    def request_stop(self, reason: str = "request_stop()") -> None:
        """End the fit after this epoch. At the end of an epoch this belongs to the training: a fit that is resumed from
        its checkpoint ends there too, other than after ``trainer.request_stop``.

        Parameters
        ----------
        reason : str
            For ``history.stopped_because``.
        """
        self.trainer._end_training(reason)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback, by name: numbers, strings, None, lists and dicts of them, and NumPy
        arrays. It is asked for after `on_epoch_end`, and at steps inside an epoch.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over such a state, right after `on_fit_begin` of a resumed fit."""

    def _settings(self) -> dict[str, Any]:
        """What must be the same in a resumed fit."""
        return {}

    def _written_path(self) -> str | None:
        """The file or folder that no fit beside this one may write to, without symbolic links."""
        return None


class Function(Callback):
    """A plain function ``f(epoch, logs)`` as a callback."""

    def __init__(self, function: Callable[[int, Logs], object]) -> None:
        self._function = function

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._function(epoch, logs)


def resolve(chosen: Any) -> list[Callback]:
    """Callbacks from a sequence or None."""
    if chosen is None:
        return []
    if not isinstance(chosen, Iterable):
        hint = " Write callbacks=[...] around it." if isinstance(chosen, Callback) or callable(chosen) else ""
        raise TypeError(f"callbacks must be a list of callbacks or None, got {chosen!r}.{hint}")
    return [as_callback(value) for value in chosen]


def as_callback(value: Any) -> Callback:
    if isinstance(value, Callback):
        return value
    if callable(value) and not isinstance(value, type):
        return Function(value)
    hint = f": write {value.__name__}(...)" if isinstance(value, type) else ""
    raise TypeError(f"a callback must be a fastnn.Callback or a function f(epoch, logs), got {value!r}{hint}.")


class _Monitor(Callback):
    """Watches one column of the history."""

    def __init__(self, monitor: str, mode: str, min_delta: float, patience: int) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a str such as 'val_loss', got {monitor!r}.")
        self.monitor = monitor
        self.mode = direction(monitor, choice("mode", mode, ("auto", "min", "max")))
        self.min_delta = number("min_delta", min_delta, 0)
        self.patience = integer("patience", patience, 0)

    def on_fit_begin(self) -> None:
        names = self.trainer.log_names
        if self.monitor not in names:
            hint = " Give validation_data or validation_split." if self.monitor.startswith("val_") else ""
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, but this fit records {', '.join(names)}.{hint}"
            )
        self._best = Best(self.mode, self.min_delta)
        self._wait = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self._best.value, "best_epoch": self._best.epoch, "wait": self._wait}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best.load(state["best_value"], state["best_epoch"])
        self._wait = integer("wait", state["wait"], 0)

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("monitor", "mode", "min_delta", "patience")}


class EarlyStopping(_Monitor):
    """Stop when `monitor` has not improved for `patience` epochs.

    Parameters
    ----------
    monitor : str
        A column of the history. The fit is an error without it.
    mode : {"auto", "min", "max"}
        Which values are better; "auto" knows the built-in names.
    min_delta : float
        An improvement is larger than this, >= 0.
    patience : int
        Epochs without improvement before stopping.
    restore_best : bool
        At the end of the fit put weights and statistics back to those of the best epoch, also when patience never ran
        out; not when an error ended the fit.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        min_delta: float = 0.0,
        patience: int = 10,
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor, mode, min_delta, patience)
        self.restore_best = boolean("restore_best", restore_best)

    def on_fit_begin(self) -> None:
        super().on_fit_begin()
        self._parameters: dict[str, Array] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self._best.update(epoch, logs[self.monitor]):
            self._wait = 0
            if self.restore_best:
                self._parameters = {name: view.copy() for name, view in self.trainer.net.parameters().items()}
            return
        self._wait += 1
        self._stop_if_due()

    def _stop_if_due(self) -> None:
        if 0 < self._wait >= self.patience:
            self.request_stop(f"{self.monitor} has not improved for {self._wait} epoch(s)")

    def state_dict(self) -> dict[str, Any]:
        best = {f"best.{name}": values for name, values in self._parameters.items()}
        return {**super().state_dict(), **best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._parameters = {}
        if self.restore_best and self._best.epoch is not None:
            views = self.trainer.net.parameters()
            self._parameters = {name: _like(view, f"best.{name}", state) for name, view in views.items()}
        self._stop_if_due()

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "restore_best": self.restore_best}

    def on_fit_end(self) -> None:
        if not self.trainer.failed:
            views = self.trainer.net.parameters()
            for name, best in self._parameters.items():
                views[name][...] = best
        self._parameters = {}


def _like(view: Array, name: str, state: dict[str, Any]) -> Array:
    """The state's array `name`, which must suit this parameter."""
    array = state[name]
    if not isinstance(array, np.ndarray) or array.dtype != view.dtype or array.shape != view.shape:
        raise ValueError(f"{name} must be an array of shape {view.shape} and dtype {view.dtype}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has a value that is not finite.")
    return array


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate by `factor` when `monitor` has not improved for `patience` epochs.

    The factor multiplies whatever the optimizer's schedule gives, and stays until `Trainer.reset`.

    Parameters
    ----------
    monitor, mode, min_delta, patience
        As in EarlyStopping.
    factor : float
        In (0, 1).
    cooldown : int
        Epochs after a reduction in which nothing is counted.
    min_lr : float
        The rate is not reduced below this.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta, patience)
        self.factor = number("factor", factor, 0, 1, open_low=True, open_high=True)
        self.cooldown = integer("cooldown", cooldown, 0)
        self.min_lr = number("min_lr", min_lr, 0)

    def on_fit_begin(self) -> None:
        super().on_fit_begin()
        self._cooling = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        cooling = self._cooling > 0
        self._cooling = max(0, self._cooling - 1)
        if self._best.update(epoch, logs[self.monitor]) or cooling:
            self._wait = 0
            return
        self._wait += 1
        if self._wait >= self.patience and logs["lr"] > self.min_lr:
            self.trainer.lr_factor *= max(self.factor, self.min_lr / logs["lr"])
            self._cooling, self._wait = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "cooling": self._cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._cooling = integer("cooling", state["cooling"], 0)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "factor": self.factor, "cooldown": self.cooldown, "min_lr": self.min_lr}


class CSVLogger(Callback):
    """Write the history to a file, one line per epoch, flushed as it goes.

    Parameters
    ----------
    path : str or path-like
        Opened, and an old file emptied, when the fit begins; a resumed fit writes the earlier epochs' lines again.
    """

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = os.fspath(path)

    def on_fit_begin(self) -> None:
        import csv

        self._file = open(self.path, "w", newline="")  # noqa: SIM115 (closed by on_fit_end)
        self._writer = csv.writer(self._file)
        self._writer.writerow(["epoch", *self.trainer.log_names])
        earlier = zip(*self.trainer.history.values(), strict=True)
        self._writer.writerows([epoch, *row] for epoch, row in enumerate(earlier))
        self._file.flush()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._writer.writerow([epoch, *logs.values()])
        self._file.flush()

    def on_fit_end(self) -> None:
        self._file.close()

    def _written_path(self) -> str:
        return os.path.realpath(os.fsdecode(self.path))


def shown(logs: Logs) -> dict[str, str]:
    """What progress tells of an epoch."""
    hidden = ("penalty", "lr", "seconds")
    shown = {name: value for name, value in logs.items() if name not in hidden}
    return {name: f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.4g}" for name, value in shown.items()}


class ProgressLines(Callback):
    """One line per epoch on standard output."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        width = int(math.log10(self._epochs)) + 1
        values = "  ".join(f"{name} {value}" for name, value in shown(logs).items())
        print(f"epoch {epoch + 1:>{width}}/{self._epochs}  {values}  {logs['seconds']:.2f} s", flush=True)


class ProgressBar(Callback):
    """tqdm's bar, where it is installed and a terminal listens."""

    def __init__(self, epochs: int, tqdm: Callable[..., Any]) -> None:
        self._epochs, self._tqdm = epochs, tqdm

    def on_fit_begin(self) -> None:
        self._bar = self._tqdm(total=self._epochs, initial=self.trainer.history.epochs, unit="epoch")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._bar.set_postfix(shown(logs), refresh=False)
        self._bar.update()

    def on_fit_end(self) -> None:
        self._bar.close()


def tqdm_of_terminal() -> Callable[..., Any] | None:
    """tqdm if it is installed and standard error is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        from tqdm.auto import tqdm  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    return tqdm  # type: ignore[no-any-return,unused-ignore]


def progress(epochs: int) -> Callback:
    """A bar if there is tqdm for it, else lines."""
    tqdm = tqdm_of_terminal()
    return ProgressLines(epochs) if tqdm is None else ProgressBar(epochs, tqdm)
